import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from predicting import one_mask

import samtune
from samtune.data import DataConfig, PromptConfig, SegmentationDataset, collate, read_image, splits
from samtune.evaluation.streaming import predict
from samtune.geometry import InputPolicy
from samtune.inference.predictor import PromptMismatch
from samtune.model.finetuned import FineTuned
from samtune.prompts import Prompts

BOX = [10, 6, 50, 40]


@pytest.fixture(scope="module")
def model(sam):
    torch.manual_seed(0)
    model = FineTuned(sam, "lora", "tuned", prompts="mixed+none")
    for p in model.parameters():
        p.data += 0.02 * torch.randn_like(p)
    return model.eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)


@pytest.fixture
def predictor(model, image):
    predictor = model.predictor()
    predictor.set_image(image)
    return predictor


def test_it_has_the_signature_of_sam_predictor(predictor):
    names = ["point_coords", "point_labels", "box", "mask_input", "multimask_output"]
    signature = inspect.signature(predictor.predict)
    assert list(signature.parameters) == [*names, "return_logits"]
    assert signature.parameters["multimask_output"].default is True
    torch_names = [name.replace("box", "boxes") for name in names]
    signature = inspect.signature(predictor.predict_torch)
    assert list(signature.parameters) == [*torch_names, "return_logits"]
    assert signature.parameters["multimask_output"].default is True
    assert list(inspect.signature(predictor.set_image).parameters) == ["image", "image_format"]
    assert list(inspect.signature(predictor.set_torch_image).parameters) == [
        "transformed_image",
        "original_image_size",
    ]


def test_it_has_the_attributes_of_sam_predictor(model, predictor, image, refused):
    assert (predictor.original_size, predictor.input_size) == ((48, 72), (43, 64))
    assert predictor.device == model.device
    assert predictor.get_image_embedding().shape == (1, 32, 8, 8)
    assert torch.equal(predictor.features, predictor.get_image_embedding())
    predictor.reset_image()
    assert predictor.features is None
    refused("set_image", predictor.get_image_embedding)
    cut = FineTuned(model.sam, input=InputPolicy((64, 64), tiles="crop")).predictor()
    cut.set_image(image)
    refused(["input={'tiles': 'crop'}", "no embedding"], cut.get_image_embedding)


def test_code_for_sam_predictor_in_the_frame_gets_the_same_masks(predictor, image, refused):
    boxes = torch.tensor([BOX, [0, 0, 20, 20]])
    expected = predictor.answer(Prompts.of(boxes=boxes.float()), return_logits=True)
    other = predictor.model.predictor()
    resized = other.transform.apply_image(image)
    other.set_torch_image(torch.as_tensor(resized).permute(2, 0, 1)[None], image.shape[:2])
    framed = other.transform.apply_boxes_torch(boxes, image.shape[:2])
    how = {"multimask_output": False, "return_logits": True}
    for one, two in zip(expected, other.predict_torch(None, None, framed, **how), strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=1e-4)
    xy = other.transform.apply_coords(np.array([[[30.0, 20.0]]]), image.shape[:2])
    low = other.predict_torch(torch.tensor(xy), torch.tensor([[1]]), **how)[2]
    np.testing.assert_allclose(low[0].numpy(), one_mask(predictor, [[30, 20]], [1])[2], atol=1e-4)
    refused("must be (1, 3, 43, 64)", other.set_torch_image, torch.zeros(1, 3, 9, 9), (48, 72))


def test_three_masks_of_a_model_trained_for_one_are_told_once(model, image, tmp_path):
    predictor = model.predictor()
    predictor.set_image(image)
    with pytest.warns(PromptMismatch, match="multimask_output=False") as noted:
        assert predictor.predict(box=BOX)[0].shape == (3, 48, 72)
    assert noted[0].filename == __file__  # the line that the reader wrote
    predictor.predict(box=BOX)
    trained = FineTuned(model.sam, "lora", "tuned")
    trained.multimask = True
    path = samtune.save(trained, tmp_path / "three.safetensors")
    for silent in (samtune.load(path, model.sam), FineTuned(model.sam)):
        asked = silent.predictor()
        asked.set_image(image)
        assert asked.predict(box=BOX)[0].shape == (3, 48, 72)


@pytest.mark.filterwarnings("ignore::samtune.inference.predictor.PromptMismatch")
@pytest.mark.parametrize("multimask", [False, True])
def test_shapes_types_and_frames(predictor, multimask):
    masks, scores, low = predictor.predict(box=BOX, multimask_output=multimask)
    k = 3 if multimask else 1
    assert masks.shape == (k, 48, 72) and masks.dtype == bool
    assert scores.shape == (k,) and scores.dtype == np.float32
    assert low.shape == (k, 32, 32) and low.dtype == np.float32
    logits, again, _ = predictor.predict(box=BOX, multimask_output=multimask, return_logits=True)
    assert logits.dtype == np.float32 and np.array_equal(logits > 0, masks)
    assert np.array_equal(again, scores)
    assert 0 < masks.mean() < 1


@pytest.mark.parametrize("resize", ["longest", "stretch"])
@pytest.mark.parametrize("mode", ["box", "point", "none"])
def test_it_equals_the_evaluation(sam, model, pairs, resize, mode):
    policy = InputPolicy((64, 64), resize)
    model = FineTuned(sam, model.adapter, model.decoder, input=policy, prompts=model.prompts).eval()
    data = DataConfig(root=str(pairs))
    records = splits(data)["train"]
    dataset = SegmentationDataset(
        records,
        data,
        (64, 64),
        resize=resize,
        prompts=PromptConfig(),
        mask_size=(32, 32),
        mode=mode,
    )
    batch = collate([dataset[0], dataset[1]])
    expected = predict(model, batch)[1]

    predictor = model.predictor()
    predictor.set_image(read_image(records[1].image))
    mine = batch.prompts.image == 1
    xy = batch.geometries[1].to_original(batch.prompts.coords[mine])[0].numpy()
    asked = {
        "box": lambda: {"box": xy.reshape(4)},
        "point": lambda: {"point_coords": xy[:1], "point_labels": [1]},
        "none": dict,
    }[mode]()
    masks, _, _ = one_mask(predictor, **asked)
    assert np.array_equal(masks, expected.numpy()) and 0 < masks.mean() < 1


def test_without_a_prompt_nothing_is_pointed_at(predictor):
    free = one_mask(predictor, return_logits=True)[0]
    assert free.shape == (1, 48, 72)
    assert not np.allclose(free, one_mask(predictor, box=BOX, return_logits=True)[0])


def test_every_prompt_counts(predictor):
    ask = {"return_logits": True}
    low = one_mask(predictor, box=BOX)[2]
    answers = [
        one_mask(predictor, box=BOX, **ask)[0],
        one_mask(predictor, point_coords=[[30, 20]], point_labels=[1], **ask)[0],
        one_mask(predictor, point_coords=[[30, 20]], point_labels=[0], **ask)[0],
        one_mask(predictor, point_coords=[[30, 20], [5, 5]], point_labels=[1, 0], **ask)[0],
        one_mask(predictor, point_coords=[[30, 20]], point_labels=[1], box=BOX, **ask)[0],
        one_mask(predictor, box=BOX, mask_input=low, **ask)[0],
        one_mask(predictor, mask_input=low, **ask)[0],
    ]
    for i, one in enumerate(answers):
        for other in answers[:i]:
            assert not np.allclose(one, other)


def test_many_prompts_at_once_answer_as_one_by_one(predictor):
    boxes = torch.tensor([BOX, [0, 0, 20, 20]]).float()
    masks, scores, low = predictor.answer(Prompts.of(boxes=boxes), return_logits=True)
    for i, box in enumerate(boxes):
        single = one_mask(predictor, box=box.numpy(), return_logits=True)
        for many, one in zip((masks, scores, low), single, strict=True):
            np.testing.assert_allclose(many[i].numpy(), one, atol=1e-4)


def test_bgr(model, image):
    answers = []
    for order, picture in (("RGB", image), ("BGR", image[..., ::-1]), ("RGB", image[..., ::-1])):
        predictor = model.predictor()
        predictor.set_image(picture, order)
        answers.append(one_mask(predictor, box=BOX, return_logits=True)[0])
    assert np.array_equal(answers[0], answers[1])
    assert not np.allclose(answers[0], answers[2])


def test_the_threshold_is_of_logits(model, image, predictor):
    logits = one_mask(predictor, box=BOX, return_logits=True)[0]
    cut = float(np.median(logits))
    stricter = model.predictor(threshold=cut)
    stricter.set_image(image)
    assert np.array_equal(one_mask(stricter, box=BOX)[0], logits > cut)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -float("inf")])
def test_a_threshold_is_finite(model, threshold, refused):
    refused([f"threshold={threshold}", "finite"], model.predictor, threshold)


def test_an_image_is_set_replaced_and_forgotten(model, image, refused):
    predictor = model.predictor()
    assert not predictor.is_image_set
    refused("set_image", predictor.predict, box=BOX)
    predictor.set_image(image)
    first = one_mask(predictor, box=BOX, return_logits=True)[0]
    predictor.set_image(np.ascontiguousarray(image[:, ::-1]))
    assert not np.allclose(first, one_mask(predictor, box=BOX, return_logits=True)[0])
    predictor.reset_image()
    assert not predictor.is_image_set
    refused("set_image", predictor.predict)


def test_no_gradient_is_kept(predictor):
    masks, _, _ = predictor.answer(Prompts.of(count=1), return_logits=True)
    assert not masks.requires_grad


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"box": [1, 2, 3]}, "4 numbers"),
        ({"box": [5, 5, 5, 9]}, "x0 < x1"),
        ({"box": [0.1, 0.2, 0.5, 0.7]}, "first pixel"),
        ({"box": [80, 5, 90, 9]}, "outside the image of 72x48"),
        ({"box": [-9, 5, 0, 9]}, "outside the image"),
        ({"box": [0, 50, 9, 60]}, "outside the image"),
        ({"box": [0, float("nan"), 9, 60]}, "not finite"),
        ({"box": "abcd"}, "4 numbers"),
        ({"box": np.ones((2, 4), int)}, ["[[1 1 1 1] [1 1 1 1]]", "predict_torch(boxes=...)"]),
        ({"point_coords": [[1, 2]]}, "0 labels for 1 points"),
        ({"point_labels": [1]}, "1 labels for 0 points"),
        ({"point_coords": [[1, 2], [3, 4]], "point_labels": [1]}, "1 labels for 2 points"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, "0 or 1"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, "n x 2 numbers"),
        ({"point_coords": [[72.5, 2]], "point_labels": [1]}, "outside the image"),
        ({"mask_input": np.zeros((1, 64, 64), np.float32)}, "(1, 32, 32)"),
        ({"mask_input": np.zeros((3, 32, 32), np.float32)}, "low_res[:1]"),
    ],
)
def test_malformed_prompts(predictor, refused, asked, said):
    refused(said, lambda: one_mask(predictor, **asked))


def test_a_precision_is_one_that_there_is(model, refused):
    refused(["precision=half", "bf16"], model.predictor, precision="half")


def test_a_box_may_reach_over_the_edge(predictor):
    assert one_mask(predictor, box=[-5, -5, 90, 60])[0].shape == (1, 48, 72)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda i: i[..., :2], "uint8 (h, w, 3)"),
        (lambda i: i.astype(np.float32), "image of float32 (48, 72, 3): its values go from 0"),
        (lambda i: np.full_like(i, np.nan, dtype=float), "NaN"),
        (lambda i: i.transpose(2, 0, 1), "image.transpose(1, 2, 0)"),
        (lambda i: i[None], "image[0]"),
        (lambda i: i[:0], "uint8 (h, w, 3)"),
        (lambda i: i.astype(complex), "complex128"),
        (lambda i: i.tolist(), "the type list"),
        (lambda i: "nowhere.png", "nowhere.png: no such image file"),
    ],
)
def test_malformed_images(model, image, refused, spoil, said):
    refused(said, model.predictor().set_image, spoil(image))
    refused("RGB or BGR", model.predictor().set_image, image, "GBR")


def test_what_people_have_as_an_image(model, image, tmp_path):
    """An array of other kinds, a picture, a path, a tensor: all are the same image."""
    predictor = model.predictor()
    picture = Image.fromarray(image)
    picture.save(tmp_path / "a.png")
    grey = image[..., 0]
    clear = np.dstack([image, np.zeros_like(grey)])
    kinds = [
        [image, picture, tmp_path / "a.png", str(tmp_path / "a.png"), torch.from_numpy(image),
         image / 255, (image / 255).astype(np.float32), clear, Image.fromarray(clear)],
        [grey, grey[..., None], Image.fromarray(grey), grey[..., None].repeat(3, 2)],
    ]  # fmt: skip
    for alike in kinds:
        answers = []
        for each in alike:
            predictor.set_image(each)
            answers.append(one_mask(predictor, box=BOX, return_logits=True)[0])
        assert all(np.array_equal(answers[0], answer) for answer in answers)
    predictor.set_image(np.ascontiguousarray(clear[..., [2, 1, 0, 3]]), "BGR")
    first = one_mask(predictor, box=BOX, return_logits=True)[0]
    predictor.set_image(image)
    np.testing.assert_array_equal(one_mask(predictor, box=BOX, return_logits=True)[0], first)
