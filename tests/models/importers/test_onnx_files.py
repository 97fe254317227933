"""ONNX files that this project did not write: exports of transformers models, models inside public packages, ONNX's own tests."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.models import ImportedModelWarning, import_onnx
from perfmodel.workload import KINDS, Workload, exact_macs

onnx = pytest.importorskip("onnx")
FILES = Path(__file__).parents[2] / "data" / "onnx"
ONNX_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def kinds(w: Workload) -> Counter:
    return Counter(KINDS[k] for k in w.operators.kind)


def matrix_rows(w: Workload) -> Counter:
    return Counter((KINDS[k], n) for k, n in zip(w.operators.kind, exact_macs(w.operators), strict=True) if n)


def check(w: Workload) -> None:
    """What holds for every workload: rows in order, nobody reads more than was made, amounts that add up."""
    assert (w.source < w.target).all() and len(set(w.names)) == w.n_operators
    op = w.operators
    assert (w.edge_bytes <= (op.out_elements * op.out_bits / 8)[w.source] * (1 + 1e-9)).all()
    entering = w.input_bytes.sum(axis=1) + w.outside_in_bytes
    np.testing.assert_allclose(entering, op.in_elements * op.in_bits / 8, rtol=1e-9, atol=1e-6)
    assert (op.lane_ops >= 0).all() and w.parameters >= 0


# what transformers exports, against the zoo, which was written from the papers

DYNAMIC = {"batch": 3, "sequence": 100}
EXPORTS = [
    ("resnet50", {}, "resnet50", {}),
    ("resnet50-torchscript", {"batch": 5}, "resnet50", {"batch": 5}),
    ("resnet50-optimized", {}, "resnet50", {}),
    ("gpt2", {}, "gpt2", {}),
    ("gpt2-dynamic", {"bind": DYNAMIC}, "gpt2", {"batch": 3, "seq_len": 100}),
    ("gpt2-dynamic", {"batch": 1, "bind": {"sequence": 1024}}, "gpt2", {}),
    ("bert-base", {}, "bert-base", {"seq_len": 512}),
    ("bert-base-torchscript", {"bind": DYNAMIC}, "bert-base", {"batch": 3, "seq_len": 100}),
    ("swin-t", {}, "swin-t", {}),
    ("llama-2-7b", {}, "llama-2-7b", {"seq_len": 512, "all_logits": True}),
]


@pytest.mark.parametrize("name, options, model, of_model", EXPORTS)
def test_exports_match_the_zoo(name, options, model, of_model):
    got, want = import_onnx(FILES / f"{name}.onnx", **options), pm.models.load(model, **of_model)
    check(got)
    assert got.macs == want.macs and got.batch.tolist() == want.batch.tolist()
    if name != "resnet50-optimized":  # batch norms are folded into the convolutions
        assert got.parameters == want.parameters
    rows, others = matrix_rows(got), matrix_rows(want)
    if model == "swin-t":  # the zoo projects queries, keys and values at once, the export one after the other
        rows, others = rows - others, others - rows
        assert {(k, 3 * n): c for (k, n), c in rows.items()} == {key: 3 * c for key, c in others.items()}
    else:
        assert rows == others


@pytest.mark.parametrize("name, options, macs, parameters", [
    ("resnet50", {}, 4_089_184_256, 25_557_032),  # torchvision
    ("resnet50-torchscript", {"batch": 1}, 4_089_184_256, 25_557_032),
    ("gpt2", {}, 106_300_440_576, 124_439_808),  # Hugging Face checkpoint, no head
    ("bert-base", {}, 48_318_971_904, 109_482_240),  # Hugging Face checkpoint, with pooler
    ("swin-t", {}, 4_490_566_656, 28_288_354),  # torchvision; microsoft/swin-tiny-patch4-window7-224
    ("llama-2-7b", {}, 3_451_543_093_248, 6_738_415_616),  # Hugging Face checkpoint
])  # fmt: skip
def test_published_figures(name, options, macs, parameters):
    w = import_onnx(FILES / f"{name}.onnx", **options)
    assert (w.macs, w.parameters) == (macs, parameters)


def test_bert_macs_by_hand():
    tokens, width = 512, 768
    block = tokens * (4 * width**2 + 8 * width**2) + 2 * tokens**2 * width
    assert import_onnx(FILES / "bert-base.onnx").macs == 12 * block + width**2  # and the pooler


def test_patterns_of_exports_become_single_rows():
    gpt2 = kinds(import_onnx(FILES / "gpt2.onnx"))
    # a block: two norms, four GEMMs with their biases, scores with a mask, softmax, values, GELU, two residual sums; queries
    # and keys are scaled on their own. No transposition moves anything.
    assert gpt2 == {
        "embedding": 1, "add": 1 + 12 * 3, "layer_norm": 25, "gemm": 48, "mul": 24, "attention_gemm": 24, "softmax": 12, "gelu": 12,
    }  # fmt: skip
    llama = kinds(import_onnx(FILES / "llama-2-7b.onnx"))
    assert (llama["rms_norm"], llama["silu"], llama["gemm"], llama["copy"]) == (65, 32, 32 * 7 + 1, 0)
    assert kinds(import_onnx(FILES / "bert-base.onnx"))["gelu"] == 12
    resnet = kinds(import_onnx(FILES / "resnet50.onnx"))
    assert resnet == {"conv": 53, "batch_norm": 53, "relu": 49, "max_pool": 1, "add": 16, "reduce": 1, "gemm": 1}


def test_types_are_those_of_the_file_unless_told_otherwise():
    path = FILES / "llama-2-7b.onnx"
    assert import_onnx(path).weight_bytes == 2 * 6_738_415_616  # fp16
    w = import_onnx(path, dtype="fp8", weight_dtype="int4")
    assert w.weight_bytes == 6_738_415_616 / 2
    assert set(w.operators.out_bits) == {8.0} and w.macs == import_onnx(path).macs
    sparse = import_onnx(FILES / "resnet50.onnx", dtype="bf16", weight_dtype="bf16-sparse50")
    assert 0.49 < sparse.macs / 4_089_184_256 < 0.52  # the first convolution has an odd depth


def test_open_dimensions_are_one_with_a_warning_that_names_them():
    with pytest.warns(
        ImportedModelWarning, match="not bound are set to 1: batch, sequence .bind=.'batch': 1, 'sequence': 1"
    ):
        w = import_onnx(FILES / "gpt2-dynamic.onnx")
    assert w.macs == pm.models.load("gpt2", seq_len=1).macs
    assert pm.models.load(str(FILES / "gpt2-dynamic.onnx"), bind=DYNAMIC).batch.tolist() == [3]


# models that ship in public packages

PACKAGES = [  # file, options, MACs, parameters, kinds that must be there
    # silero-vad 6.2.3: If over the sampling rate, each branch with its own STFT (a convolution), encoder and LSTM
    ("silero-vad", {"bind": {"input[0]": 1, "input[1]": 576, "state[1]": 1}}, 679_552, 309_633, {"conv": 6, "gemm": 2}),
    # rapidocr-onnxruntime 1.4.4 (PaddleOCR direction classifier): dimensions of -1
    ("ppocr-cls", {"batch": 2, "bind": {"x[2]": 48, "x[3]": 192}}, 32_630_752, 129_356, {"conv": 53, "gemm": 1}),
    # ddddocr 1.6.1: dynamically quantised, ConvInteger, MatMulInteger, DynamicQuantizeLSTM
    ("ddddocr", {"bind": {"image_width": 128}}, 455_294_976, 13_520_258, {"conv": 21, "gemm": 3, "quantize": 22}),
    ("magika", {"batch": 1}, 366_717_952, 784_214, {"conv": 1, "gemm": 2, "gelu": 2}),  # magika 1.0.3, tf2onnx
]


@pytest.mark.parametrize("name, options, macs, parameters, some", PACKAGES)
def test_models_of_public_packages(name, options, macs, parameters, some):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportedModelWarning)
        w = import_onnx(FILES / f"{name}.onnx", **options)
    check(w)
    assert (w.macs, w.parameters) == (macs, parameters)
    assert {kind: kinds(w)[kind] for kind in some} == some


def test_silero_by_hand():
    """STFT of 640 samples (reflected) as 258 filters of 256 every 128, four convolutions, an LSTM of 128, one output."""
    frames, macs = (640 - 256) // 128 + 1, 0
    macs += frames * 258 * 256
    for c, k, stride in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)):
        frames = -(-frames // stride)
        macs += frames * c * k * 3
    macs += 4 * 128 * (128 + 128) + 128
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportedModelWarning)
        assert import_onnx(FILES / "silero-vad.onnx", batch=1, bind={"input[1]": 576}).macs == macs


def test_ddddocr_weights_are_eight_bits():
    w = import_onnx(FILES / "ddddocr.onnx", bind={"image_width": 128})
    matrix = w.operators.is_matrix > 0
    assert w.weight_bytes < 1.01 * w.parameters
    assert set(w.operators.in_bits[matrix][:20]) == {8.0}


@pytest.mark.parametrize("name, macs, parameters", [
    # torchvision's counts where the architectures agree; AlexNet of Caffe has two groups (60,965,224, Caffe model zoo)
    ("resnet50", 4_089_184_256, 25_557_032), ("vgg19", 19_632_062_464, 143_667_240), ("squeezenet", 349_151_936, 1_235_496),
    ("bvlc_alexnet", 654_560_384, 60_965_224), ("densenet121", 2_834_161_664, 7_979_112 ), ("inception_v1", 1_431_556_352, 6_998_552),
    ("inception_v2", 2_018_851_840, 11_196_584), ("shufflenet", 124_664_528, 1_393_320), ("zfnet512", 1_481_727_008, 87_250_536),
])  # fmt: skip
def test_light_models_inside_onnx(name, macs, parameters):
    """Their weights are ConstantOfShape: nothing is stored, shapes suffice."""
    w = import_onnx(ONNX_DATA / "light" / f"light_{name}.onnx")
    check(w)
    assert (w.macs, w.parameters) == (macs, parameters)


def imports(paths) -> tuple[int, list[str]]:
    """How many files import; the others say why in one line that names the file."""
    done, said = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ImportedModelWarning)
        for path in paths:
            try:
                check(import_onnx(path))
                done += 1
            except ValueError as error:
                assert str(path) in str(error) and "\n" not in str(error) and "malformed" not in str(error)
                said.append(str(error))
    return done, said


def test_models_of_onnx_that_pytorch_exported():
    # node/, which older versions of onnx bring too, is the next test's
    paths = [path for path in sorted(ONNX_DATA.glob("*/*/model.onnx")) if path.parts[-3] != "node"]
    done, said = imports(paths)
    assert len(paths) >= 100 and done >= len(paths) - 5, said


@pytest.mark.slow
def test_sample_of_every_node_of_onnx(tmp_path):
    """All node tests of the package onnx (1,884 in 1.23.2): 94 % import; the rest are constants, empty tensors, sequences as
    inputs, or shapes that depend on the elements of an input."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    paths = []
    for case in cases:
        paths.append(tmp_path / f"{case.name}.onnx")
        paths[-1].write_bytes(case.model.SerializeToString())
    done, said = imports(paths)
    assert done >= 0.94 * len(paths), (done, len(paths))
    known = (
        "all outputs are constants", "no elements", "every size must be", "depends on", "sequence", "made by no node", "opset 8"
    )  # fmt: skip
    assert [text for text in said if not any(why in text for why in known)] == []
