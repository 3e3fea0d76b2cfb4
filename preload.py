"""Command line flags, which a WebUI collects before it reads anything else of the extension."""

from __future__ import annotations

from argparse import ArgumentParser


def preload(parser: ArgumentParser) -> None:
    """Add the extension's flags to the WebUI's own."""
    parser.add_argument(
        "--hybridstitch-small",
        metavar="NAME",
        default=None,
        help="HybridStitch: the small checkpoint for runs that name none, as the checkpoint list names it "
        "(Settings > HybridStitch comes first)",
    )
    parser.add_argument(
        "--hybridstitch-second-device",
        metavar="DEVICE",
        default=None,
        help='HybridStitch: the device that the setting "Small model device" means by "second", such as cuda:1 or cpu',
    )
