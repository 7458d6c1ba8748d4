"""Messages have the words of whoever called: of Python, or of a command line."""

import pytest

import samtune
from samtune.errors import InputError
from samtune.options import in_python, speaks_python


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("adapter.name=lorra: must be one of lora", "adapter=lorra: must be one of lora"),
        ("adapter.lora.rank=-1: is low", "adapter_options={'lora': {'rank': -1}}: is low"),
        ("use input.tiles=whole.", "use input={'tiles': 'whole'}."),
        ("train.compile=graphs: set train.compile=true", "compile=graphs: set compile=True"),
        ("--out=a.pth: say --licence mit", "out='a.pth': say licence='mit'"),
        ("allow it by base.any=true (in Python f(1))", "allow it by any_base=True"),
        ("give data.train, data.yaml or NAME.decoder.onnx", None),
        ("tensors adapter.updates.0.a.0, decoder.onnx", None),
    ],
)
def test_settings_of_a_command_line_become_arguments(message, words):
    assert samtune.FitConfig.section == "train"  # whose fields are known once it is loaded
    assert in_python(message) == (words or message)


def test_only_a_caller_outside_of_samtune_is_told_in_python(monkeypatch):
    @speaks_python({"base.weights": "source"})
    def function():
        raise InputError("base.weights=a: no file")

    caller = {"function": function, "__name__": "samtune.cli.main"}
    for name, words in (("samtune.cli.main", "base.weights=a: "), ("mine", "source=a: ")):
        caller["__name__"] = name
        with pytest.raises(InputError, match=words):
            exec("function()", caller)


def test_public_functions_refuse_wrong_arguments_in_one_line(refused, tmp_path):
    sam = samtune.load_sam("nano")
    model = samtune.FineTuned(sam, "lora")
    refused("input={'mean': 3}: must be a list of 3", samtune.FineTuned, sam, input={"mean": 3})
    refused("name=3: must be one of", samtune.load_sam, 3)
    refused("device=tpu9: ", samtune.load_sam, "nano", device="tpu9")
    refused("model=Sam: must be a FineTuned", samtune.Predictor, sam)
    refused("move it before", samtune.Predictor, model, device="cuda")
    refused("predict_torch(boxes=...)", samtune.Predictor(model).predict, boxes=[1, 2, 3, 4])
    refused("threshold='x': must be a number", samtune.Predictor, model, threshold="x")
    refused("licence='apache-2.0'", samtune.bundle, "a", "b", license="mit")
    refused("out='b.pth': must end in .safetensors", samtune.bundle, tmp_path, "b.pth")
    refused("boxes=list: must be a tensor (N, 4)", samtune.Prompts.of, boxes=[[1, 2, 3, 4]])
    refused("batch_size=0: must be a whole number", samtune.evaluate, model, [], batch_size=0)
    refused("measuring={}: must be an EvalConfig", samtune.evaluate, model, [], measuring={})
    refused("prompts=NoneType: must be samtune.Prompts", model, sam.prompt_encoder, None)
    refused("limits=3: must be the low and the high", samtune.data_from, [], limits=3)
