/**
 * The generations of this page: from the press of Generate to the pictures in the gallery.
 *
 * A generation is known by the host's task id, which the page leaves in localStorage. Another browser window leaves its
 * own there too: what the "storage" event names is never ours.
 */
(function() {
    "use strict";

    const {parts} = window.hybridstitch;
    const LOOK = 500; // milliseconds between two questions about progress
    const GONE = 40000; // after so long the host does not know the task, as in its own scripts
    const LATE = 10000; // how long task ids and pictures may take to appear

    const pause = (ms) => new Promise((done) => setTimeout(done, ms));

    /** Addresses of the pictures in the gallery. */
    function gallery(tab) {
        const root = gradioApp().getElementById(`${tab}_gallery`);
        for (const selector of root ? [".thumbnails img", ".grid-container img", "img"] : []) {
            const found = Array.from(root.querySelectorAll(selector)).filter((image) => !image.closest(".livePreview"));
            if (found.length) {
                return found.map((image) => image.src);
            }
        }
        return [];
    }

    /** The seed that the picture's infotext names, or NaN. */
    function seed(tab) {
        const text = gradioApp().getElementById(`html_info_${tab}`)?.textContent || "";
        const settings = text.slice(Math.max(0, text.lastIndexOf("Steps: "))); // a prompt may speak of seeds too
        return Number(settings.match(/\bSeed: (\d+)/)?.[1] ?? NaN);
    }

    /** What the server says to a question, or null when it cannot be asked. */
    async function ask(address, body) {
        try {
            const post = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
            const reply = await fetch(address, body ? post : {});
            return reply.ok ? await reply.json() : null;
        } catch (error) {
            return null;
        }
    }

    /** Wait until the host has finished a task; false when it never knew of it. */
    async function finished(task) {
        let known = performance.now();
        while (performance.now() - known < GONE) {
            const told = await ask("./internal/progress", {id_task: task, live_preview: false});
            if (told?.completed) {
                return true;
            }
            if (told?.active || told?.queued) {
                known = performance.now();
            }
            await pause(LOOK);
        }
        return false;
    }

    /**
     * Watch a tab's generations; `ended(run)` hears of each when its pictures are there, or when none came.
     *
     * A run: {snapshot, task, pictures, seconds from the press to the picture, seed, interrupted, figures, ok}.
     */
    parts.runs = function(panel, ended) {
        const {tab} = panel;
        const key = `${tab}_task_id`;
        const foreign = new Set();
        let current = null;

        /** The task id of a generation that has just been asked for, or null. */
        async function task(before) {
            const start = performance.now();
            while (performance.now() - start < LATE) {
                const id = localStorage.getItem(key);
                if (id && id !== before && !foreign.has(id)) {
                    return id;
                }
                await pause(20);
            }
            return null;
        }

        /** Wait until the gallery has changed since the press; note when. */
        function watchGallery(run) {
            const before = run.pictures.join();
            const observer = new MutationObserver(() => {
                const now = gallery(tab);
                if (now.join() !== before) {
                    run.pictures = now;
                    run.seconds ??= (performance.now() - run.start) / 1000;
                }
            });
            const root = gradioApp().getElementById(`${tab}_gallery`);
            if (root) {
                observer.observe(root, {subtree: true, childList: true, attributes: true, attributeFilter: ["src"]});
            }
            return observer;
        }

        /** Follow a generation to its end. */
        async function follow(run, before) {
            const observer = watchGallery(run);
            try {
                run.task = await task(before);
                if (!run.task || !await finished(run.task)) {
                    return;
                }
                const done = performance.now();
                while (run.seconds === undefined && performance.now() - done < LATE) {
                    await pause(50);
                }
                await pause(300); // the infotext follows the gallery
                run.seed = seed(tab);
                run.ok = run.seconds !== undefined && run.pictures.length > 0;
                if (run.snapshot.enabled && !run.comparison) {
                    run.figures = await ask(`./hybridstitch/v1/last-run?task=${encodeURIComponent(run.task)}`);
                }
            } finally {
                observer.disconnect();
                if (current === run) {
                    current = null;
                }
                ended(run);
            }
        }

        function begin() {
            const run = {snapshot: panel.snapshot(), start: performance.now(), pictures: gallery(tab), ok: false};
            current = run;
            run.done = follow(run, localStorage.getItem(key)).then(() => run);
        }

        window.addEventListener("storage", (event) => {
            if (event.key === key && event.newValue) {
                foreign.add(event.newValue);
            }
        });
        gradioApp().addEventListener("click", (event) => {
            const pressed = event.target.closest?.(`#${tab}_generate, #${tab}_interrupt, #${tab}_skip`);
            if (pressed?.id === `${tab}_generate`) {
                begin();
            } else if (pressed && current) {
                current.interrupted = true;
            }
        }, true);

        return Object.freeze({
            current: () => current,

            /** Press Generate for a comparison, which is no last run; resolves with the run when it is over. */
            generate() {
                gradioApp().getElementById(`${tab}_generate`).click();
                current.comparison = true;
                return current.done;
            },
        });
    };

    parts.pause = pause;
})();
