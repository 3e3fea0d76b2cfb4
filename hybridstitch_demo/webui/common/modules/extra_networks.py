"""`<lora:name:weight>` in prompts: taken out, and activated before the text is encoded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

Found = dict[str, list["ExtraNetworkParams"]]


class ExtraNetworkParams:
    """One mention in a prompt."""

    def __init__(self, items: Sequence[str] = ()) -> None:
        self.items = list(items)
        self.positional = [item for item in items if "=" not in item]
        self.named = dict(item.split("=", 1) for item in items if "=" in item)


def parse_prompts(prompts: Sequence[str]) -> tuple[list[str], Found]:
    """Return the prompts without mentions, and the mentions of the first prompt by kind."""
    texts, found = [], []
    for prompt in prompts:
        mentions: Found = defaultdict(list)
        for kind, items in re.findall(r"<(\w+):([^>]+)>", prompt):
            mentions[kind].append(ExtraNetworkParams(items.split(":")))
        texts.append(re.sub(r"<(\w+):([^>]+)>", "", prompt))
        found.append(mentions)
    return texts, found[0]


def activate(p: Any, extra_network_data: Found) -> None:
    """Apply the LoRAs of a batch to the model, and tell the scripts."""
    import networks

    loras = (extra_network_data or {}).get("lora", [])
    names = [params.positional[0] for params in loras]
    weights = [float(params.positional[1]) if len(params.positional) > 1 else 1.0 for params in loras]
    networks.load_networks(names, weights, weights)
    if p.scripts is not None:
        p.scripts.after_extra_networks_activate(
            p,
            batch_number=p.iteration,
            prompts=p.prompts,
            seeds=p.seeds,
            subseeds=p.subseeds,
            extra_network_data=extra_network_data,
        )


def deactivate(p: Any, extra_network_data: Found) -> None:
    """Called when the run is over; the LoRAs stay on until others are wanted."""
