/** The stage bar: one segment per step, filled by its share of tokens on the large model, and the forecast in words. */
(function() {
    "use strict";

    const {element, parts} = window.hybridstitch;

    /** Runs of steps of one stage: [{stage, steps}], in order. */
    function grouped(steps) {
        const groups = [];
        for (const step of steps) {
            if (groups.at(-1)?.stage !== step.stage) {
                groups.push({stage: step.stage, steps: []});
            }
            groups.at(-1).steps.push(step);
        }
        return groups;
    }

    /** What the legend counts: [{kind, text}]; "full" are the refresh steps inside the hybrid stage. */
    function counted(steps, say) {
        const of = (stage) => steps.filter((step) => step.stage === stage);
        const hybrid = of("hybrid");
        const full = hybrid.filter((step) => step.large >= 1).length;
        const held = hybrid.filter((step) => step.held).length;
        const masked = hybrid.find((step) => step.large < 1);
        const share = Math.round(100 * (masked?.large ?? 1));
        const told = [];
        for (const stage of [...new Set(steps.map((step) => step.stage))]) {
            const key = stage === "hybrid" && share === 0 ? "count_bare" : `count_${stage}`;
            told.push({kind: stage, text: say(key, {count: of(stage).length, share})});
            if (stage === "hybrid" && full && masked) {
                told.push({kind: "full", text: say(held ? "count_held" : "count_full", {count: full, held})});
            }
        }
        return told;
    }

    /** One step: a column whose fill is the large model's share; a pass that holds guidance computes half the rows. */
    function column(step) {
        const made = element("span", {className: "hybridstitch-segment"});
        made.classList.toggle("hybridstitch-full", step.stage === "hybrid" && step.large >= 1);
        made.style.setProperty("--hybridstitch-share", step.held ? step.large / 2 : step.large);
        return made;
    }

    /** Make the bar inside `place`; `show` takes the server's answer. */
    parts.bar = function(place, say) {
        const factor = element("strong", {className: "hybridstitch-factor"});
        const summary = element("div", {className: "hybridstitch-summary", role: "status"});
        const note = element("div", {className: "hybridstitch-note", role: "status"});
        const bar = element("div", {className: "hybridstitch-bar", role: "img"});
        const legend = element("ul", {className: "hybridstitch-legend"});
        place.replaceChildren(
            element("div", {className: "hybridstitch-head"}, factor,
                element("div", {className: "hybridstitch-words"}, summary, note)),
            bar,
            legend,
        );

        function draw(told) {
            const legends = counted(told.steps, say);
            const texts = legends.map((item) => item.text);
            const speed = told.speedup.toFixed(1);
            factor.textContent = say("about", {factor: speed});
            factor.classList.toggle("hybridstitch-slow", told.speedup <= 1.02);
            const basis = say(told.measured ? "by_times" : "by_count", {factor: speed});
            summary.textContent = [say("count_steps", {steps: told.steps.length}), ...texts, basis].join(" · ");
            note.textContent = told.reason ? say(`reason_${told.reason}`) : "";
            bar.classList.toggle("hybridstitch-dense", told.steps.length > 60);
            const words = {steps: told.steps.length, parts: texts.join(", "), factor: speed};
            bar.setAttribute("aria-label", say("bar", words));
            bar.replaceChildren(...grouped(told.steps).map(({stage, steps}) => {
                const group = element("span", {className: "hybridstitch-group", "data-stage": stage});
                group.style.flexGrow = steps.length;
                group.append(...steps.map(column));
                return group;
            }));
            legend.replaceChildren(...legends.map(({kind, text}) => element("li", {},
                element("span", {className: "hybridstitch-swatch", "data-stage": kind, "aria-hidden": "true"}), text)));
        }

        /** Show {told} (a forecast), {refusal} (why there is none), or neither: then the last one stays, greyed. */
        return function show({told, refusal, waiting}) {
            place.classList.toggle("hybridstitch-stale", !told);
            if (told) {
                draw(told);
            } else if (refusal) {
                summary.textContent = refusal;
                note.textContent = "";
            }
            if (told || refusal) {
                place.classList.toggle("hybridstitch-refused", Boolean(refusal) && !waiting);
            }
        };
    };
})();
