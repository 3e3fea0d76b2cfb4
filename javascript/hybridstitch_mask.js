/** The mask over the picture: what the large model did not compute in a step is dimmed. */
(function() {
    "use strict";

    const {element, parts} = window.hybridstitch;
    const DIM = "rgba(0, 0, 0, 0.68)";

    /** Which tokens of a picture the large model computed: a list of them, or null for all. */
    function computed(step, image) {
        return step.mask ? step.mask[image] || [] : step.tokens_large > 0 ? null : [];
    }

    /** Make the figure inside `place`; `picked(number)` hears which picture of several the user looks at. */
    parts.mask = function(place, say, picked) {
        const image = element("img", {className: "hybridstitch-picture"});
        const canvas = element("canvas", {className: "hybridstitch-mask", "aria-hidden": "true"});
        const choice = element("select", {className: "hybridstitch-choice", "aria-label": say("picture")});
        const caption = element("figcaption", {className: "hybridstitch-caption"}, say("dimmed"));
        place.replaceChildren(element("div", {className: "hybridstitch-stack"}, image, canvas), caption, choice);
        let pictures = [];
        let grid = [1, 1];
        let step = null;

        function draw() {
            const [rows, columns] = grid;
            const at = Number(choice.value);
            const tokens = computed(step, at);
            canvas.height = rows; // also clears it
            canvas.width = columns;
            const pen = canvas.getContext("2d");
            if (tokens) {
                pen.fillStyle = DIM;
                pen.fillRect(0, 0, columns, rows);
                for (const token of tokens) {
                    pen.clearRect(token % columns, Math.floor(token / columns), 1, 1);
                }
            }
        }

        function pick() {
            const at = Number(choice.value);
            image.src = pictures[at];
            image.alt = say("picture_of", {number: at + 1, count: pictures.length});
            picked(at);
            if (step) {
                draw();
            }
        }

        choice.addEventListener("change", pick);

        return Object.freeze({
            /** Show other pictures (addresses); none hides the figure. */
            pictures(sources) {
                pictures = sources;
                step = null;
                place.hidden = !sources.length;
                choice.hidden = sources.length < 2;
                choice.replaceChildren(...sources.map((_, at) => element(
                    "option", {value: String(at)}, say("picture_of", {number: at + 1, count: sources.length}))));
                if (sources.length) {
                    pick();
                }
            },

            /** Show a step of a pass whose token grid is [rows, columns]. */
            step(made, size) {
                step = made;
                grid = size;
                if (pictures.length) {
                    draw();
                }
            },
        });
    };
})();
