"""`gnndrop env` prints what a bug report needs, as text and as JSON."""

import json
import platform

import torch


def test_env(gnndrop):
    run = gnndrop("env", "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    assert document["python"] == platform.python_version()
    assert document["torch"] == torch.__version__
    assert (document["gpu"] is None) != torch.cuda.is_available()

    lines = gnndrop("env").out.splitlines()
    assert [line.split()[0] for line in lines] == list(document)
