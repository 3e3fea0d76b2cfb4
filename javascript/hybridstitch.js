/**
 * The forecast below HybridStitch's sliders: what the settings will do, told by the server before anything runs.
 *
 * Looks at the page three times a second and asks once the settings have stood still between two looks, because a
 * control that a preset or a pasted infotext has moved makes no event.
 */
(function() {
    "use strict";

    const PAUSE = 300; // milliseconds
    const RUN = {
        steps: "steps",
        width: "width",
        height: "height",
        cfg_scale: "cfg_scale",
        sampler: "sampling",
        scheduler: "scheduler",
        batch_size: "batch_size",
    };

    /** What a gradio control shows: a number, a tick or a text; null for an empty number, undefined without a control. */
    function read(id) {
        const root = gradioApp().getElementById(id);
        const inputs = root ? Array.from(root.querySelectorAll("input, textarea")) : [];
        const ofType = (type) => inputs.filter((input) => input.type === type);
        if (ofType("radio").length) {
            return ofType("radio").find((input) => input.checked)?.value;
        }
        if (ofType("checkbox").length) {
            return ofType("checkbox")[0].checked;
        }
        if (ofType("number").length) {
            const text = ofType("number")[0].value;
            return text === "" ? null : Number(text);
        }
        return inputs[0]?.value;
    }

    /** Give each number its step again: gradio 3 makes it 1 whenever the server sets or skips the control. */
    function keepSteps(line) {
        for (const [id, step] of Object.entries(JSON.parse(line.dataset.steps))) {
            const input = gradioApp().getElementById(id)?.querySelector("input[type=number]");
            if (input && Number(input.step) !== step) {
                input.step = step;
            }
        }
    }

    /** The question to the server, as JSON: our settings, and the run they are for. */
    function question(line) {
        const settings = {};
        for (const [name, id] of Object.entries(JSON.parse(line.dataset.controls))) {
            settings[name] = read(id) ?? undefined; // an empty number is "not given", as it is to a generation
        }
        const asked = {settings};
        for (const [name, suffix] of Object.entries(RUN)) {
            asked[name] = read(`${line.dataset.tab}_${suffix}`);
        }
        if (line.dataset.tab === "img2img") {
            asked.denoising_strength = read("img2img_denoising_strength");
        }
        return JSON.stringify(asked);
    }

    /** The server's answer as lines of text; none when it has no answer. */
    async function forecast(asked) {
        try {
            const reply = await fetch("./hybridstitch/v1/plan", {
                method: "POST",
                headers: {"Content-Type": "application/json"},
                body: asked,
            });
            const told = await reply.json();
            const lines = reply.ok ? [told.summary, told.advice] : [told.detail];
            return {lines: lines.filter((text) => text && typeof text === "string"), refused: !reply.ok};
        } catch (error) {
            return {lines: [], refused: false};
        }
    }

    /** Show an answer, one element per line; text only. */
    function show(line, answer) {
        line.classList.toggle("hybridstitch-refused", answer.refused);
        line.replaceChildren(...answer.lines.map((text) => {
            const element = document.createElement("div");
            element.textContent = text;
            return element;
        }));
    }

    /** Keep one panel's forecast true. */
    function watch(line) {
        let seen = null;
        let answered = null;
        return async function look() {
            if (!line.getClientRects().length) {
                return; // folded away, or in the other tab
            }
            keepSteps(line);
            const asked = question(line);
            const still = asked === seen;
            seen = asked;
            if (!still || asked === answered) {
                return;
            }
            answered = asked;
            const answer = await forecast(asked);
            if (asked === answered) { // nothing newer has been asked meanwhile
                show(line, answer);
            }
        };
    }

    onUiLoaded(function() {
        for (const line of gradioApp().querySelectorAll(".hybridstitch-plan")) {
            setInterval(watch(line), PAUSE);
        }
    });
})();
