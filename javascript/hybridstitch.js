/**
 * What every script of the panel uses: reading and moving the page's controls, making elements, and saying texts.
 *
 * The one global of the extension. This file's name comes first in the alphabet, so it is loaded first; the others add
 * what they make to `hybridstitch.parts`.
 */
(function() {
    "use strict";

    const RUN = {
        steps: "steps",
        width: "width",
        height: "height",
        cfg_scale: "cfg_scale",
        sampler: "sampling",
        scheduler: "scheduler",
        batch_size: "batch_size",
    };
    // What else decides about a picture, where the page has it.
    const MORE = [
        "prompt", "neg_prompt", "seed", "batch_count", "denoising_strength", "hr-checkbox", "hr_scale", "hr_upscaler",
        "hires_steps",
    ];

    /** A gradio control's inputs. */
    function inputs(id, type) {
        const root = gradioApp().getElementById(id);
        const found = root ? Array.from(root.querySelectorAll("input, textarea")) : [];
        return type ? found.filter((input) => input.type === type) : found;
    }

    /** What a control shows: a number, a tick or a text; null for an empty number, undefined without a control. */
    function read(id) {
        if (inputs(id, "radio").length) {
            return inputs(id, "radio").find((input) => input.checked)?.value;
        }
        if (inputs(id, "checkbox").length) {
            return inputs(id, "checkbox")[0].checked;
        }
        if (inputs(id, "number").length) {
            const text = inputs(id, "number")[0].value;
            return text === "" ? null : Number(text);
        }
        return inputs(id)[0]?.value;
    }

    /** Put a number (null: none) or a text into a control as if it were typed. */
    function write(id, value) {
        const input = inputs(id, "number")[0] || inputs(id)[0];
        input.value = String(value ?? "");
        input.dispatchEvent(new Event("input", {bubbles: true}));
    }

    /** Tick or untick our accordion. Its visible tick, where there is one, does so without folding it. */
    function tick(id, wanted) {
        const [hidden] = inputs(id, "checkbox");
        if (hidden && hidden.checked !== wanted) {
            (gradioApp().getElementById(id.replace(/-checkbox$/, "-visible-checkbox")) || hidden).click();
        }
    }

    /** An element with properties (attributes where the name has a dash, and `role`) and children, texts among them. */
    function element(tag, properties, ...children) {
        const made = document.createElement(tag);
        for (const [name, value] of Object.entries(properties || {})) {
            if (name.includes("-") || name === "role") {
                made.setAttribute(name, value);
            } else {
                made[name] = value;
            }
        }
        made.append(...children);
        return made;
    }

    /** One panel: where its things are, and what it says. */
    function panel(root) {
        const texts = JSON.parse(root.dataset.texts);
        const controls = JSON.parse(root.dataset.controls);
        const tab = root.dataset.tab;

        /** A whole sentence in the page's language, where it has it. */
        function translate(text) {
            return window.localization?.[text] || text;
        }

        /** A text of the panel in the page's language, with its braces filled. */
        function say(key, values) {
            return translate(texts[key]).replace(/\{(\w+)\}/g, (braces, name) => values?.[name] ?? braces);
        }

        /** Our settings, hidden ones too; an empty number is "not given", as it is to a generation. */
        function settings() {
            const places = Object.entries(controls);
            return Object.fromEntries(places.map(([name, id]) => [name, read(id) ?? undefined]));
        }

        /** The question to the server: our settings, and the run they are for. */
        function question() {
            const asked = {settings: settings()};
            for (const [name, suffix] of Object.entries(RUN)) {
                asked[name] = read(`${tab}_${suffix}`);
            }
            if (tab === "img2img") {
                asked.denoising_strength = read("img2img_denoising_strength");
            }
            return asked;
        }

        /** Everything that decides about a picture, as far as the page shows it, apart from our tick and the seed. */
        function snapshot() {
            const {settings: {enabled, ...ours}, ...run} = question();
            const more = Object.fromEntries(MORE.map((suffix) => [suffix, read(`${tab}_${suffix}`)]));
            const {seed, ...rest} = more;
            const model = read("setting_sd_model_checkpoint")?.replace(/ \[\w+\]$/, ""); // a hash may come later
            return {enabled, seed, rest: JSON.stringify({ours, run, rest, model})};
        }

        return Object.freeze({
            root,
            tab,
            controls: Object.freeze(controls),
            steps: Object.freeze(JSON.parse(root.dataset.steps)),
            show: JSON.parse(root.dataset.show),
            say,
            translate,
            question,
            snapshot,
            visible: () => root.getClientRects().length > 0, // not folded away, nor in the other tab
        });
    }

    window.hybridstitch = Object.freeze({read, write, tick, element, panel, parts: {}});
})();
