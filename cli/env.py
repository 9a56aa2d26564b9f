"""`gnndrop env`: what a bug report must say of the machine."""

from gnndrop.cli._options import Debug, Json


def env(json: Json = False, debug: Debug = False) -> None:
    """Print versions, for a bug report."""
    import torch  # the imports that --help can do without

    from gnndrop.cli import _render
    from gnndrop.study.provenance import environment

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    document = {**environment(), "gpu": gpu}
    if json:
        _render.write_json(document)
    else:
        _render.write_pairs(document)
