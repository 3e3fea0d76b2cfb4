/** The comparison: the same picture by the large model alone, and both under a wiper. */
(function() {
    "use strict";

    const {element, parts, read, tick, write} = window.hybridstitch;
    const SETTLE = 150; // milliseconds that gradio gets to take a changed control over
    const ALL_LARGE = "1L"; // a plan fits a run of any length

    /** Make the wiper inside `place`: two pictures, one laid over the other up to a range input's position. */
    function wiper(place, say) {
        const large = element("img", {className: "hybridstitch-picture", alt: say("large_model")});
        const stitched = element("img", {className: "hybridstitch-picture hybridstitch-upper", alt: "HybridStitch"});
        const range = element("input", {
            className: "hybridstitch-wipe", type: "range", min: "0", max: "100", value: "50",
            "aria-label": say("wiper"),
        });
        const left = element("span", {className: "hybridstitch-tag hybridstitch-left"});
        const right = element("span", {className: "hybridstitch-tag hybridstitch-right"});
        const caption = element("figcaption", {className: "hybridstitch-caption"});
        const stack = element("div", {className: "hybridstitch-stack"}, large, stitched,
            element("span", {className: "hybridstitch-edge", "aria-hidden": "true"}), left, right, range);
        place.replaceChildren(stack, caption);

        function wipe() {
            const share = Number(range.value);
            stack.style.setProperty("--hybridstitch-at", `${share}%`);
            range.setAttribute("aria-valuetext", say("wiper_told", {share, rest: 100 - share}));
        }

        range.addEventListener("input", wipe);
        wipe();

        return Object.freeze({
            /** Show two pictures of two runs. */
            show(one, other, at) {
                stitched.src = one.pictures[at];
                large.src = other.pictures[at];
                left.textContent = `HybridStitch ${one.seconds.toFixed(1)} s`;
                right.textContent = `${say("large_model")} ${other.seconds.toFixed(1)} s`;
                caption.textContent = say("compared", {
                    stitched: one.seconds.toFixed(1),
                    large: other.seconds.toFixed(1),
                });
                place.hidden = false;
            },
            hide() {
                place.hidden = true;
            },
        });
    }

    /** Why a run cannot be compared with another one now (the key of a sentence), or null. */
    function obstacle(run, now, runs) {
        const seed = Number(now.seed) === -1 ? run.seed : Number(now.seed);
        if (runs.current()) {
            return "busy";
        }
        if (run.interrupted) {
            return "cut_short";
        }
        if (now.rest !== run.snapshot.rest || (Number(run.snapshot.seed) !== Number(now.seed) && seed !== run.seed)) {
            return "changed";
        }
        return Number.isFinite(seed) ? null : "no_seed";
    }

    /** Make the button, its status line and the wiper inside `place`. */
    parts.compare = function(place, panel, runs) {
        const {say, tab, controls} = panel;
        const button = element("button", {className: "hybridstitch-compare", type: "button"}, say("compare"));
        const status = element("span", {className: "hybridstitch-said", role: "status"});
        const figure = element("figure", {className: "hybridstitch-wiper", hidden: true});
        const both = wiper(figure, say);
        place.replaceChildren(element("div", {className: "hybridstitch-actions"}, button, status), figure);
        let run = null;
        let other = null;
        let picture = 0;

        /**
         * Generate with the run's seed and the large model alone; the page is as before afterwards.
         *
         * That is the extension off; but a large model that only the extension can run makes every step inside it.
         */
        async function largeOnly(now) {
            const seed = Number(now.seed);
            const plan = read(controls.plan);
            const foreign = run.figures.passes.some((done) => !done.hosts_own);
            try {
                if (seed === -1) {
                    write(`${tab}_seed`, run.seed);
                }
                if (foreign) {
                    write(controls.plan, ALL_LARGE);
                } else {
                    tick(controls.enabled, false);
                }
                await parts.pause(SETTLE);
                return await runs.generate();
            } finally {
                if (seed === -1) {
                    write(`${tab}_seed`, seed);
                }
                if (foreign) {
                    write(controls.plan, plan);
                }
                tick(controls.enabled, Boolean(now.enabled));
            }
        }

        async function compare() {
            const now = panel.snapshot();
            const problem = obstacle(run, now, runs);
            if (problem) {
                status.textContent = say(problem);
                return;
            }
            const compared = run;
            button.disabled = true;
            status.textContent = say("comparing");
            const made = await largeOnly(now).catch(() => ({ok: false}));
            button.disabled = false;
            if (made.ok && !made.interrupted) {
                other = {...made, pictures: made.pictures.slice(-compared.pictures.length)};
                both.show(compared, other, picture);
                status.textContent = "";
            } else {
                status.textContent = say(made.interrupted ? "interrupted" : "failed");
            }
        }

        button.addEventListener("click", compare);

        return Object.freeze({
            /** Another stitched run: {snapshot, pictures, seconds, seed, interrupted}. */
            run(stitched) {
                run = stitched;
                other = null;
                status.textContent = "";
                both.hide();
                place.hidden = !stitched.pictures.length;
            },

            /** Which picture of several is looked at. */
            picture(at) {
                picture = at;
                if (other) {
                    both.show(run, other, at);
                }
            },
        });
    };
})();
