"""The API of the embedded WebUI: the hosts' routes that clients use, with the hosts' requests and answers."""

from __future__ import annotations

import functools
import inspect
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import JSONResponse

from hybridstitch_demo import sdapi_models as models
from hybridstitch_demo.sdapi_lists import Lists
from hybridstitch_demo.standin import Host
from hybridstitch_demo.studio import PARAMETERS, Studio, new_task

ROOT = "/sdapi/v1"
IN_BODY: Any = Body(...)
EMPTY = ("sd-vae", "sd-modules", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles", "loras")
"""Lists of what the stand-in has none of."""
PREVIEWS_PER_JOB = 1000


def add_routes(app: FastAPI, studio: Studio) -> None:
    """Register the routes.

    Args:
        app: the application.
        studio: what draws.
    """
    pictures, lists = Pictures(studio), Lists(studio.host)
    progress, settings = Progress(studio), Settings(studio.host)
    routes: dict[tuple[str, str], Callable[..., Any]] = {
        ("POST", f"{ROOT}/txt2img"): pictures.txt2img,
        ("POST", f"{ROOT}/img2img"): pictures.img2img,
        ("POST", f"{ROOT}/png-info"): pictures.png_info,
        ("GET", f"{ROOT}/progress"): progress.read,
        ("POST", f"{ROOT}/interrupt"): progress.interrupt,
        ("POST", f"{ROOT}/skip"): progress.skip,
        ("POST", "/internal/progress"): progress.of_task,
        ("GET", "/internal/pending-tasks"): progress.pending,
        ("GET", "/internal/ping"): dict,
        ("GET", f"{ROOT}/options"): settings.read,
        ("POST", f"{ROOT}/options"): settings.write,
        ("GET", f"{ROOT}/cmd-flags"): settings.flags,
        ("GET", f"{ROOT}/memory"): settings.memory,
        ("POST", f"{ROOT}/refresh-checkpoints"): settings.refresh_checkpoints,
        ("POST", f"{ROOT}/unload-checkpoint"): settings.unload_checkpoint,
        ("POST", f"{ROOT}/reload-checkpoint"): settings.reload_checkpoint,
        ("GET", f"{ROOT}/sd-models"): lists.checkpoints,
        ("GET", f"{ROOT}/samplers"): lists.samplers,
        ("GET", f"{ROOT}/schedulers"): lists.schedulers,
        ("GET", f"{ROOT}/upscalers"): lists.upscalers,
        ("GET", f"{ROOT}/latent-upscale-modes"): lists.latent_upscale_modes,
        ("GET", f"{ROOT}/scripts"): lists.scripts,
        ("GET", f"{ROOT}/script-info"): lists.script_info,
        ("GET", f"{ROOT}/embeddings"): lists.embeddings,
        **{("GET", f"{ROOT}/{name}"): list for name in EMPTY},
    }
    for (method, path), answer in routes.items():
        app.add_api_route(path, _guarded(answer, studio.host), methods=[method], response_model=None)


def _guarded(answer: Callable[..., Any], host: Host) -> Callable[..., Any]:
    """The endpoint that tells of a failure as the hosts do, without a trace of calls."""

    def run(**given: Any) -> Any:
        try:
            return answer(**given)
        except HTTPException as error:
            if isinstance(error.detail, list) or host.name != "a1111":  # as fastapi itself tells it
                return JSONResponse({"detail": error.detail}, status_code=error.status_code)
            return _failure(error.status_code, error, error.detail)
        except Exception as error:  # noqa: BLE001 - whatever a generation raises
            host.module("modules.errors").report(f"API error: {error}", exc_info=True)
            return _failure(500, error)

    functools.update_wrapper(run, answer, assigned=("__name__", "__doc__"), updated=())
    del run.__wrapped__  # type: ignore[attr-defined]  # list and dict have no signature
    plain = not inspect.isclass(answer)
    signature = inspect.signature(answer, eval_str=True) if plain else inspect.Signature()
    run.__signature__ = signature.replace(return_annotation=inspect.Signature.empty)  # type: ignore[attr-defined]
    return run


def _failure(status: int, error: Exception, detail: Any = "") -> JSONResponse:
    errors = "" if isinstance(error, HTTPException) else str(error)
    told = {"error": type(error).__name__, "detail": detail, "body": "", "errors": errors}
    return JSONResponse(told, status_code=status)


class Pictures:
    """Routes that draw, and the one that reads what a picture tells.

    Args:
        studio: what draws.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio, self.host = studio, studio.host

    def txt2img(self, body: dict[str, Any] = IN_BODY) -> dict[str, Any]:
        """Draw from a prompt."""
        request, params = self._read("txt2img", body)
        return self._draw("txt2img", request, params, {})

    def img2img(self, body: dict[str, Any] = IN_BODY) -> dict[str, Any]:
        """Draw from a picture."""
        request, params = self._read("img2img", body)
        given = request["init_images"]
        if not given:
            raise HTTPException(404, "Init image not found")
        if len(given) not in (1, request["batch_size"]):
            told = f"init_images has {len(given)} pictures, but must have one, or as many as batch_size"
            raise HTTPException(422, f"{told}, which is {request['batch_size']}.")
        decoded: dict[str, Any] = {"init_images": [models.decode_picture(one) for one in given]}
        decoded["mask"] = models.decode_mask(request["mask"]) if request["mask"] else None
        answer = self._draw("img2img", request, params, decoded)
        if not request["include_init_images"]:
            answer["parameters"].update(init_images=None, mask=None)
        return answer

    def _read(self, kind: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The request, checked, and its infotext, parsed."""
        processing = self.host.module("modules.processing")
        name = "StableDiffusionProcessingImg2Img" if kind == "img2img" else "StableDiffusionProcessingTxt2Img"
        known = models.fields_of(kind, getattr(processing, name))
        infotext, params = models.read(body, {"infotext": known["infotext"]})["infotext"], {}
        if infotext:
            params = self.host.module("modules.infotext_utils").parse_generation_parameters(infotext)
        request = models.read(models.fill_from_infotext(body, params, known), known)
        models.check(request)
        return request, params

    def _draw(
        self, kind: str, request: dict[str, Any], params: Mapping[str, Any], decoded: Mapping[str, Any]
    ) -> dict[str, Any]:
        if request["script_name"]:
            raise HTTPException(422, f"Script '{request['script_name']}' not found")
        attributes = {name: value for name, value in request.items() if name not in models.ONLY_OF_THE_API}
        attributes.update(decoded, **self._names(request))
        values = self._script_values(kind, request["alwayson_scripts"], params)
        drawn = self.studio.draw(kind, attributes, values, request["force_task_id"] or new_task(kind), is_api=True)
        told = zip(drawn.pictures, drawn.infotexts) if request["send_images"] else ()
        return {
            "images": [models.encode_picture(picture, infotext) for picture, infotext in told],
            "parameters": dict(request),
            "info": json.dumps(drawn.info, default=str),
        }

    def _names(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sampler and schedule, the nearest there are; other names are only checked."""
        samplers = self.host.module("modules.sd_samplers")
        wanted = request["sampler_name"] or request["sampler_index"]
        for name in ("refiner_checkpoint", "hr_checkpoint_name"):
            title = request.get(name)
            if title and title != "None" and self.host.sd_models.get_closet_checkpoint_match(title) is None:
                raise LookupError(f"Could not find checkpoint with name {title}")
        modes = self.host.shared.latent_upscale_modes
        if request.get("enable_hr") and request["hr_upscaler"] not in (None, *modes):
            told = f"but this WebUI has only {', '.join(modes)}"
            raise HTTPException(422, f"hr_upscaler is {request['hr_upscaler'][:64]!r}, {told}.")
        sampler, scheduler = samplers.get_sampler_and_scheduler(wanted, request["scheduler"])
        automatic = None if scheduler == "Automatic" else scheduler
        names = {"sampler_name": sampler, "scheduler": request["scheduler"] or automatic}
        if request.get("hr_sampler_name"):
            names["hr_sampler_name"], _ = samplers.get_sampler_and_scheduler(request["hr_sampler_name"], None)
        return names

    def _script_values(self, kind: str, given: Mapping[str, Any], params: Mapping[str, Any]) -> list[Any]:
        """Values of every script's controls: the request's, else the infotext's, else the controls' own."""
        runner, alwayson = self.host.runner(kind), {}
        taken: set[int] = set()
        for title, told in given.items():
            script = runner.script(title)
            if script is None:
                raise HTTPException(422, f"always on script {title} not found")
            if not script.alwayson:
                raise HTTPException(422, "Cannot have a selectable script in the always on scripts params")
            if not isinstance(told, dict) or not isinstance(told.get("args", []), list):
                raise HTTPException(422, f'alwayson_scripts must have {{"args": [...]}} for {title}.')
            alwayson[title] = told.get("args", [])
            taken.update(range(script.args_from, script.args_from + len(alwayson[title])))
        values = list(self.host.script_args(kind, alwayson))
        if params:
            pasted = self.host.module("modules.infotext_utils").values_for(runner.infotext_fields, dict(params))
            at = {id(control): index for index, control in enumerate(runner.inputs)}
            for (control, _), value in zip(runner.infotext_fields, pasted):
                index = at.get(id(control))
                value = value.get("value") if isinstance(value, dict) else value  # a change of a component
                if value is not None and index is not None and index not in taken:
                    values[index] = value
        return values

    def png_info(self, body: dict[str, Any] = IN_BODY) -> dict[str, Any]:
        """What a picture's file tells about it."""
        text = models.read(body, {"image": models.Field("str", "")})["image"]
        items = {
            key: value for key, value in models.decode_picture(text.strip()).info.items() if isinstance(value, str)
        }
        infotext = items.pop(PARAMETERS, "")
        params = self.host.module("modules.infotext_utils").parse_generation_parameters(infotext)
        self.host.callbacks.infotext_pasted_callback(infotext, params)
        return {"info": infotext, "items": items, "parameters": params}


class Progress:
    """Routes about what runs.

    Args:
        studio: what draws.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio, self.state, self.opts = studio, studio.host.state, studio.host.opts
        self.progress = studio.host.module("modules.progress")

    def read(self, skip_current_image: bool = False) -> dict[str, Any]:
        """How far the running generation is, whoever asked for it."""
        done, left, picture = 0.0, 0.0, None
        if self.state.job_count != 0:
            done = min(0.01 + self.progress.fraction(), 1.0)
            elapsed = time.time() - self.progress.started_at
            left = elapsed / done - elapsed
            picture = None if skip_current_image else self._preview()
        told = {"progress": done, "eta_relative": left, "state": self.state.dict()}
        return {**told, "current_image": picture, "textinfo": self.state.textinfo}

    def _preview(self) -> str | None:
        picture = self.studio.preview() if self.opts.live_previews_enable else None
        return None if picture is None else models.encode_picture(picture)

    def of_task(self, body: dict[str, Any] = IN_BODY) -> dict[str, Any]:
        """How far one job is; the picture so far is sent when it is another than the one known to who asks."""
        asked = {"id_task": ("str", None), "id_live_preview": ("int", -1), "live_preview": ("bool", True)}
        request = models.read(body, {name: models.Field(*field) for name, field in asked.items()})
        told = {"live_preview": None, "id_live_preview": -1, **self.progress.report(request["id_task"])}
        if told["active"]:
            number = 1 + self.state.job_no * PREVIEWS_PER_JOB + self.state.sampling_step
            known = told["id_live_preview"] = request["id_live_preview"]
            picture = self._preview() if request["live_preview"] and number != known else None
            if picture is not None:
                told.update(live_preview=f"data:image/png;base64,{picture}", id_live_preview=number)
        return told

    def pending(self) -> dict[str, Any]:
        """Jobs that wait."""
        tasks = list(self.progress.pending_tasks)
        return {"size": len(tasks), "tasks": tasks}

    def interrupt(self) -> dict[str, Any]:
        """Stop, and keep what there is."""
        self.state.interrupt()
        return {}

    def skip(self) -> None:
        """Stop this batch, and go on with the next."""
        self.state.skip()


class Settings:
    """Routes about options and the loaded model.

    Args:
        host: the stand-in.
    """

    def __init__(self, host: Host) -> None:
        self.host, self.opts = host, host.opts
        self.queue_lock = host.module("modules.call_queue").queue_lock

    def read(self) -> dict[str, Any]:
        """Every option, saved or not."""
        return {**{key: option.default for key, option in self.opts.data_labels.items()}, **self.opts.data}

    def write(self, body: dict[str, Any] = IN_BODY) -> None:
        """Set options; those before an unknown one are set, as on the hosts."""
        title = body.get("sd_model_checkpoint")
        if title is not None and title not in self.host.sd_models.checkpoint_aliases:
            raise RuntimeError(f"model {title!r} not found")
        for key, value in body.items():
            self.opts.set(key, value, is_api=True)

    def flags(self) -> dict[str, Any]:
        """The command line."""
        return vars(self.host.shared.cmd_opts)

    def memory(self) -> dict[str, Any]:
        """Memory of the machine, in bytes."""
        try:
            import psutil

            process = psutil.Process()
            used, total = process.memory_info().rss, psutil.virtual_memory().total
            ram: dict[str, Any] = {"free": total - used, "used": used, "total": total}
        except ImportError as error:
            ram = {"error": str(error)}
        if not torch.cuda.is_available():
            return {"ram": ram, "cuda": {"error": "unavailable"}}
        free, total = torch.cuda.mem_get_info()
        return {"ram": ram, "cuda": {"system": {"free": free, "used": total - free, "total": total}}}

    def refresh_checkpoints(self) -> None:
        """Read the checkpoint folders again."""
        with self.queue_lock:
            self.host.shared.refresh_checkpoints()

    def unload_checkpoint(self) -> dict[str, Any]:
        """Move the model away from the GPU."""
        with self.queue_lock:
            self.host.sd_models.unload_model_weights()
        return {}

    def reload_checkpoint(self) -> dict[str, Any]:
        """Bring it back; the stand-in's is never far."""
        return {}
