/**
 * What extensions expect of a WebUI's page, and what this page's buttons do: `gradioApp`, `onUiLoaded`, accordions with a
 * tick, jobs with a name, progress with a preview. Names and behaviour are those of the WebUIs.
 */
"use strict";

const uiLoadedCallbacks = [];
const POLL = 400; // milliseconds between two looks at the progress

/** Where gradio's elements are. */
function gradioApp() {
    const elements = document.getElementsByTagName("gradio-app");
    return (elements.length && elements[0].shadowRoot) || document;
}

/** Run a function once the page is there. */
function onUiLoaded(callback) {
    uiLoadedCallbacks.push(callback);
}

/** Tell gradio that a value was set by a script. */
function updateInput(target) {
    target.dispatchEvent(new Event("input", {bubbles: true}));
}

/** Show an accordion's tick as it was set elsewhere, by a pasted infotext for one. */
function inputAccordionChecked(id, checked) {
    const accordion = gradioApp().getElementById(id);
    if (accordion?.visibleCheckbox) {
        accordion.visibleCheckbox.checked = checked;
        accordion.onVisibleCheckboxChange();
    }
}

/**
 * Give an accordion its tick, kept equal to the hidden checkbox that gradio knows. Unfolding it ticks it, and the other
 * way round, until the tick itself is clicked: from then on both go their own ways, as in the WebUIs.
 */
function setupAccordion(accordion) {
    const label = accordion.querySelector(".label-wrap");
    const hidden = gradioApp().querySelector(`#${accordion.id}-checkbox input`);
    const name = label.querySelector("span");
    const isOpen = () => label.classList.contains("open");
    let linked = true;
    const visible = document.createElement("input");
    visible.type = "checkbox";
    visible.id = `${accordion.id}-visible-checkbox`;
    visible.className = "input-accordion-checkbox";
    visible.checked = hidden.checked;
    visible.setAttribute("aria-label", name.textContent.trim());
    accordion.visibleCheckbox = visible;
    accordion.onVisibleCheckboxChange = () => {
        if (linked && isOpen() !== visible.checked) {
            label.click();
        }
        if (hidden.checked !== visible.checked) {
            hidden.checked = visible.checked;
            updateInput(hidden);
        }
    };
    new MutationObserver(() => {
        if (linked && visible.checked !== isOpen()) {
            visible.checked = isOpen();
            accordion.onVisibleCheckboxChange();
        }
    }).observe(label, {attributes: true, attributeFilter: ["class"]});
    visible.addEventListener("click", (event) => {
        linked = false;
        event.stopPropagation();
    });
    visible.addEventListener("input", accordion.onVisibleCheckboxChange);
    name.insertBefore(visible, name.firstChild);
}

const webuiPage = (function() {
    const $ = (id) => gradioApp().getElementById(id);

    async function ask(path, body) {
        const options = body === undefined ? {} : {
            method: "POST",
            headers: {"Content-Type": "application/json"},
            body: JSON.stringify(body),
        };
        const reply = await fetch(path, options);
        return reply.json();
    }

    function running(kind, yes) {
        $(`${kind}_interrupt`).style.display = yes ? "block" : "none";
    }

    /** The bar and the preview of one job. */
    function makeProgress(kind) {
        const holder = $(`${kind}_gallery_container`);
        holder.querySelectorAll(".progressDiv, .livePreview").forEach((old) => old.remove());
        const outer = document.createElement("div");
        outer.className = "progressDiv";
        outer.setAttribute("role", "progressbar");
        outer.setAttribute("aria-label", "Generation");
        outer.setAttribute("aria-valuemin", "0");
        outer.setAttribute("aria-valuemax", "100");
        const inner = document.createElement("div");
        inner.className = "progress";
        outer.append(inner);
        const preview = document.createElement("img");
        preview.className = "livePreview";
        preview.alt = "Live preview";
        preview.hidden = true;
        holder.prepend(outer, preview);
        return {
            show(told) {
                const percent = Math.round(100 * (told.progress || 0));
                inner.style.width = `${percent}%`;
                inner.textContent = told.textinfo || (percent ? `${percent}%` : "");
                outer.setAttribute("aria-valuenow", String(percent));
                if (told.live_preview) {
                    preview.src = told.live_preview;
                    preview.hidden = false;
                }
            },
            remove() {
                outer.remove();
                preview.remove();
            },
        };
    }

    async function follow(kind, task) {
        const bar = makeProgress(kind);
        let last = -1;
        let misses = 0;
        try {
            for (;;) {
                await new Promise((resolve) => setTimeout(resolve, POLL));
                const told = await ask("./internal/progress",
                    {id_task: task, id_live_preview: last, live_preview: true}).catch(() => null);
                if (!told || told.completed) {
                    if (told || ++misses > 5) {
                        return;
                    }
                    continue;
                }
                last = told.id_live_preview ?? last;
                bar.show(told);
            }
        } finally {
            bar.remove();
            running(kind, false);
            if (localStorage.getItem(`${kind}_task_id`) === task) {
                localStorage.removeItem(`${kind}_task_id`);
            }
        }
    }

    /** A generation begins: name the job, show its progress, and hand the name over with the controls' values. */
    function submit(kind, values) {
        const task = `task(${Math.random().toString(36).slice(2, 9)}${Math.random().toString(36).slice(2, 9)})`;
        localStorage.setItem(`${kind}_task_id`, task);
        running(kind, true);
        follow(kind, task);
        return [task, ...values.slice(1)];
    }

    function interrupt() {
        ask("./sdapi/v1/interrupt", {}).catch(() => null);
    }

    /** Open a tab. */
    function open(kind) {
        const wanted = Array.from(gradioApp().querySelectorAll("#tabs button"))
            .find((button) => button.textContent.trim() === kind);
        wanted?.click();
    }

    function start() {
        gradioApp().querySelectorAll(".input-accordion").forEach(setupAccordion);
        document.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
                const kind = event.target.closest?.("#tab_img2img") ? "img2img" : "txt2img";
                event.preventDefault();
                $(`${kind}_generate`).click();
            }
        });
        uiLoadedCallbacks.forEach((callback) => callback());
    }

    /** Gradio builds a page piece by piece. */
    function complete() {
        const accordions = Array.from(gradioApp().querySelectorAll(".input-accordion"));
        return accordions.length === 2 && $("img2img_generate") && $("img2img_seed")
            && accordions.every((one) => gradioApp().querySelector(`#${one.id}-checkbox input`));
    }

    const waiting = setInterval(() => {
        if (complete()) {
            clearInterval(waiting);
            start();
        }
    }, 50);

    return Object.freeze({submit, interrupt, open});
})();
