/** The bar: one segment per step, filled by the large model's share of it, and the plan in words. */
(function() {
    "use strict";

    const {element, parts} = window.hybridstitch;

    const spelled = (seconds) => seconds.toFixed(seconds < 10 ? 1 : 0);

    /** What the legend counts: [{kind, text}], in the order of first use. */
    function counted(steps, say) {
        return [...new Set(steps.map((step) => step.kind))].map((kind) => {
            const found = steps.filter((step) => step.kind === kind);
            const share = Math.round(100 * found.reduce((sum, step) => sum + step.ratio, 0) / found.length);
            return {kind, text: say(`count_${kind}`, {count: found.length, share})};
        });
    }

    /** One step: a column filled from below by the large model's share, and above it by the small one's. */
    function column(step) {
        const made = element("span", {className: "hybridstitch-segment", "data-kind": step.kind});
        made.style.setProperty("--hybridstitch-share", step.large);
        made.style.setProperty("--hybridstitch-both", Math.min(1, step.large + step.small));
        return made;
    }

    /** Make the bar inside `place`; `show` takes the server's answer. */
    parts.bar = function(place, panel) {
        const {say} = panel;
        const factor = element("strong", {className: "hybridstitch-factor"});
        const summary = element("div", {className: "hybridstitch-summary"});
        const note = element("div", {className: "hybridstitch-note"});
        const bar = element("div", {className: "hybridstitch-bar"});
        const legend = element("ul", {className: "hybridstitch-legend"});
        place.replaceChildren(
            element("div", {className: "hybridstitch-head", role: "status"}, factor,
                element("div", {className: "hybridstitch-words"}, summary, note)),
            bar,
            legend,
        );

        /** What is to be known besides: why nothing is gained or what is missing, and what was changed for safety. */
        function remarks(told) {
            const written = told.settings.plan ? [say("written")] : [];
            const reason = told.reason ? [say(`reason_${told.reason}`)] : [];
            return [...written, ...reason, ...told.notes.map(panel.translate)];
        }

        /** What the speed-up rests on: seconds, once a run has been measured. */
        function expected(told) {
            const steps = told.steps.length;
            return told.seconds === null
                ? say("by_count", {steps})
                : say("by_times", {steps, seconds: spelled(told.seconds), large: spelled(told.large_seconds)});
        }

        function draw(told) {
            const legends = counted(told.steps, say);
            const texts = legends.map((item) => item.text);
            const speed = told.speedup.toFixed(1);
            factor.textContent = say("about", {factor: speed});
            factor.classList.toggle("hybridstitch-slow", told.speedup <= 1.02);
            summary.textContent = expected(told);
            note.replaceChildren(...remarks(told).map((remark) => element("p", {}, remark)));
            bar.classList.toggle("hybridstitch-dense", told.steps.length > 60);
            const words = {steps: told.steps.length, parts: texts.join(", "), factor: speed};
            bar.setAttribute("role", "img"); // an empty one is none
            bar.setAttribute("aria-label", say("bar", words));
            bar.replaceChildren(...told.steps.map(column));
            legend.replaceChildren(...legends.map(({kind, text}) => element("li", {},
                element("span", {className: "hybridstitch-swatch", "data-kind": kind, "aria-hidden": "true"}), text)));
        }

        /** Show {told} (a prediction), {refusal} (why there is none), or neither: then the last one stays, greyed. */
        return function show({told, refusal, waiting}) {
            place.classList.toggle("hybridstitch-stale", !told);
            if (told) {
                draw(told);
            } else if (refusal) {
                summary.textContent = refusal;
                note.replaceChildren();
            }
            if (told || refusal) {
                place.classList.toggle("hybridstitch-refused", Boolean(refusal) && !waiting);
            }
        };
    };
})();
