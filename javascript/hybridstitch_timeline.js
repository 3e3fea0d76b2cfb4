/** The timeline of a pass: a bar per step, as high as its milliseconds, and a slider that goes through the steps. */
(function() {
    "use strict";

    const {element, parts} = window.hybridstitch;

    const share = (step) => step.tokens_large / step.tokens;

    /** A step in words. */
    function told(steps, at, say) {
        const step = steps[at];
        return say("step_told", {
            step: at + 1,
            steps: steps.length,
            kind: say(`kind_${step.kind}`),
            sigma: step.sigma.toFixed(2),
            share: Math.round(100 * share(step)),
            ms: step.ms < 10 ? step.ms.toFixed(1) : Math.round(step.ms),
        });
    }

    /**
     * Make the timeline inside `place`; `chosen(step)` hears which step the user looks at.
     *
     * Returns `show(steps)`, which begins at the first step with a mask, else at the first of all.
     */
    parts.timeline = function(place, say, chosen) {
        const chart = element("div", {className: "hybridstitch-chart", "aria-hidden": "true"}); // the slider tells it
        const slider = element("input", {
            className: "hybridstitch-slider", type: "range", min: "1", step: "1", "aria-label": say("step"),
        });
        const output = element("output", {className: "hybridstitch-told"});
        place.replaceChildren(
            element("div", {className: "hybridstitch-caption"}, say("timeline")), chart, slider, output);
        let shown = [];

        function choose() {
            const at = Number(slider.value) - 1;
            const words = told(shown, at, say);
            output.textContent = words;
            slider.setAttribute("aria-valuetext", words);
            chart.querySelector(".hybridstitch-chosen")?.classList.remove("hybridstitch-chosen");
            chart.children[at].classList.add("hybridstitch-chosen");
            chosen(shown[at]);
        }

        slider.addEventListener("input", choose);
        chart.addEventListener("click", (event) => {
            const at = Array.from(chart.children).indexOf(event.target.closest(".hybridstitch-time"));
            if (at >= 0) {
                slider.value = at + 1;
                choose();
                slider.focus();
            }
        });

        return function show(steps) {
            shown = steps;
            const most = Math.max(...steps.map((step) => step.ms)) || 1;
            chart.classList.toggle("hybridstitch-dense", steps.length > 60);
            chart.replaceChildren(...steps.map((step, at) => {
                const time = element("span", {className: "hybridstitch-ms"});
                time.style.setProperty("--hybridstitch-ms", step.ms / most);
                const load = element("span", {className: "hybridstitch-share"});
                load.style.setProperty("--hybridstitch-share", share(step));
                return element("span", {
                    className: "hybridstitch-time", title: told(steps, at, say), "data-kind": step.kind,
                }, time, load);
            }));
            place.style.setProperty("--hybridstitch-steps", steps.length);
            slider.max = steps.length;
            slider.value = 1 + Math.max(0, steps.findIndex((step) => step.mask));
            choose();
        };
    };
})();
