/**
 * A panel, put together: the bar, which follows every control, and the last run of this page.
 *
 * Looks at the page three times a second and asks once the settings have stood still between two looks, because a
 * control that a preset or a pasted infotext has moved makes no event.
 */
(function() {
    "use strict";

    const {element, parts} = window.hybridstitch;
    const PAUSE = 300; // milliseconds
    const DECIDING = ["method", "preset", "small_checkpoint"]; // about the method in force

    /** Give each number its step again: gradio 3 makes it 1 whenever the server sets or skips the control. */
    function keepSteps(steps) {
        for (const [id, step] of Object.entries(steps)) {
            const input = gradioApp().getElementById(id)?.querySelector("input[type=number]");
            if (input && Number(input.step) !== step) {
                input.step = step;
            }
        }
    }

    /** The server's answer: {told}, {refusal, waiting}, {closed} where a password is asked for, or {} without one. */
    async function predict(asked) {
        try {
            const reply = await fetch("./hybridstitch/v1/plan", {
                method: "POST",
                headers: {"Content-Type": "application/json"},
                body: asked,
            });
            if (reply.status === 401) {
                return {closed: true};
            }
            const told = await reply.json();
            if (reply.ok) {
                return {told};
            }
            return typeof told.detail === "string" ? {refusal: told.detail, waiting: reply.status === 503} : {};
        } catch (error) {
            return {};
        }
    }

    /** Keep one panel's bar true, and the controls of the method in force there. */
    function follow(panel) {
        const show = parts.bar(panel.root.querySelector(".hybridstitch-plan"), panel);
        let seen = null;
        let answered = null;
        let closed = false;
        let shown = null;

        /** Let the server show the controls: saved values, options or an overtaken answer may have left others there. */
        function showControls(settings) {
            const now = JSON.stringify(DECIDING.map((name) => settings[name]));
            if (now !== shown) {
                shown = now;
                gradioApp().getElementById(panel.show)?.click();
            }
        }

        async function look() {
            if (!panel.visible()) {
                return;
            }
            keepSteps(panel.steps);
            const question = panel.question();
            const asked = JSON.stringify(question);
            const still = asked === seen;
            seen = asked;
            if (!still) {
                return;
            }
            showControls(question.settings);
            if (closed || asked === answered) {
                return;
            }
            answered = asked;
            const answer = await predict(asked);
            closed = Boolean(answer.closed); // asking again would only fill the browser's console
            if (asked === answered) { // nothing newer has been asked meanwhile
                show(closed ? {refusal: panel.say("closed"), waiting: true} : answer);
            }
        }

        window.onOptionsChanged?.(() => {
            shown = null;
        });

        /** Ask once more: a run has taught the server what steps take. */
        look.again = () => {
            answered = null;
        };
        return look;
    }

    /** What a pass took, in words. */
    function speed(done, say) {
        const predicted = done.predicted.toFixed(1);
        const measured = done.speedup?.toFixed(1);
        return measured ? say("measured", {measured, predicted}) : say("unmeasured", {predicted});
    }

    /** Make the section of the last run; it shows itself when this page has one. */
    function lastRun(panel, again) {
        const {say} = panel;
        const section = panel.root.querySelector(".hybridstitch-run");
        const fast = element("strong", {className: "hybridstitch-measured", role: "status"});
        const stopped = element("div", {className: "hybridstitch-note"});
        const passes = element("select", {className: "hybridstitch-choice", "aria-label": say("pass")});
        const [time, action] = ["hybridstitch-timeline", "hybridstitch-comparison"].map(
            (className) => element("div", {className}));
        const figure = element("figure", {className: "hybridstitch-figure"});
        const head = element("div", {className: "hybridstitch-head"},
            element("h4", {className: "hybridstitch-title"}, say("last_run")), fast, passes);
        section.replaceChildren(head, stopped, time, figure, action);
        section.setAttribute("aria-label", say("last_run"));

        let figures = null;
        const pass = () => figures.passes[Number(passes.value)];
        const runs = parts.runs(panel, ended);
        const comparison = parts.compare(action, panel, runs);
        const mask = parts.mask(figure, say, (at) => comparison.picture(at));
        const timeline = parts.timeline(time, say, (step) => mask.step(step, pass().grid));

        function showPass() {
            fast.textContent = speed(pass(), say);
            timeline(pass().steps);
        }

        /** A generation of this page is over. */
        function ended(run) {
            if (!run.figures?.passes.length && !run.figures?.stopped) {
                return; // not stitched, or interrupted before its first step; what is shown stays true
            }
            again();
            figures = run.figures;
            const some = figures.passes.length > 0;
            const pictures = run.ok && some ? run.pictures.slice(-figures.passes[0].images) : [];
            stopped.textContent = figures.stopped;
            fast.textContent = "";
            time.hidden = !some;
            passes.hidden = figures.passes.length < 2;
            passes.replaceChildren(...figures.passes.map((done, at) => element(
                "option", {value: String(at)}, say(done.hires ? "hires_pass" : "first_pass"))));
            section.hidden = false;
            comparison.run({...run, pictures});
            mask.pictures(pictures);
            if (some) {
                showPass();
            }
        }

        passes.addEventListener("change", showPass);
    }

    onUiLoaded(function() {
        for (const root of gradioApp().querySelectorAll(".hybridstitch-live")) {
            const panel = window.hybridstitch.panel(root);
            const look = follow(panel);
            setInterval(look, PAUSE);
            lastRun(panel, look.again);
        }
    });
})();
