"""DICOM in its units wherever they stand, whatever its files are called."""

import numpy as np
import pytest

from samtune.data import find_images, read_image
from samtune.data.config import DataConfig
from samtune.data.intensity import policy_of
from samtune.data.volumes import load

pydicom = pytest.importorskip("pydicom")
uid = pydicom.uid
PLANES = np.random.default_rng(0).integers(0, 2000, (4, 6, 8)).astype(np.uint16)


def item(**values):
    part = pydicom.Dataset()
    for key, value in values.items():
        setattr(part, key, value)
    return part


def write(path, values, **more):
    """A file of stored values ``(h, w)``, frames ``(n, h, w)`` or colours ``(h, w, 3)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = values.shape[-1] == 3
    rows, columns = values.shape[:2] if colours else values.shape[-2:]
    bits = 8 * values.dtype.itemsize
    part = item(
        SOPClassUID=uid.CTImageStorage, SOPInstanceUID=uid.generate_uid(),
        SeriesInstanceUID="1.2.3", Rows=rows, Columns=columns,
        SamplesPerPixel=3 if colours else 1, PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1,
        PixelRepresentation=int(values.dtype.kind == "i"), PixelData=values.tobytes(),
    )  # fmt: skip
    if colours:
        part.PlanarConfiguration = 0
    elif values.ndim == 3:
        part.NumberOfFrames = len(values)
    part.file_meta = pydicom.dataset.FileMetaDataset()
    part.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    part.file_meta.MediaStorageSOPClassUID = part.SOPClassUID
    part.file_meta.MediaStorageSOPInstanceUID = part.SOPInstanceUID
    for key, value in more.items():
        setattr(part, key, value)
    part.save_as(path, enforce_file_format=True)
    return path


def scale(slope, shift):
    return item(PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=shift)])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"RescaleSlope": 2, "RescaleIntercept": -1024}, PLANES * 2.0 - 1024),
        ({"SharedFunctionalGroupsSequence": [scale(1, -1024)]}, PLANES - 1024.0),
        (
            {"PerFrameFunctionalGroupsSequence": [scale(1 + i, -i) for i in range(4)]},
            PLANES * np.arange(1, 5)[:, None, None] - np.arange(4.0)[:, None, None],
        ),
        ({"RescaleSlope": None, "RescaleIntercept": None, "NumberOfFrames": 4}, PLANES),
        ({"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}, 4095 - PLANES),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "RescaleIntercept": -5},
            65535.0 - PLANES - 5,
        ),
    ],
)
def test_frames_in_their_units(tmp_path, tags, expected):
    np.testing.assert_array_equal(load(write(tmp_path / "a.dcm", PLANES, **tags)), expected)


def test_zero_hounsfield_units_are_the_middle_of_the_window(tmp_path):
    path = write(tmp_path / "a.dcm", np.full((2, 6, 8), 1024, np.uint16),
                 SharedFunctionalGroupsSequence=[scale(1, -1024)])  # fmt: skip
    policy = policy_of(DataConfig(intensity="window", window=(-1000.0, 1000.0)))
    assert {int(read_image(r.image, policy).mean()) for r in find_images(path)} == {128}


def of_files(path):
    """The bytes of all images of a path by the windows that its files say."""
    policy = policy_of(DataConfig(intensity="window"))
    return np.stack([read_image(r.image, policy)[..., 0] for r in find_images(path)])


def voi(centre, width, **more):
    return item(FrameVOILUTSequence=[item(WindowCenter=centre, WindowWidth=width, **more)])


@pytest.mark.parametrize(
    ("tags", "ends"),
    [
        ({"WindowCenter": 500.5, "WindowWidth": 401}, [(300, 700)] * 4),
        ({"WindowCenter": [500.5, 9], "WindowWidth": [401, 9]}, [(300, 700)] * 4),
        ({"WindowCenter": 500, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
         [(300, 700)] * 4),
        ({"WindowCenter": 9, "WindowWidth": 9,
          "SharedFunctionalGroupsSequence": [voi(500.5, 401)]}, [(300, 700)] * 4),
        ({"PerFrameFunctionalGroupsSequence": [voi(500.5 + i, 401) for i in range(4)]},
         [(300 + i, 700 + i) for i in range(4)]),
        ({"RescaleIntercept": -100, "WindowCenter": 400.5, "WindowWidth": 401}, [(300, 700)] * 4),
    ],
)  # fmt: skip
def test_the_window_is_the_files_own_wherever_it_stands(tmp_path, tags, ends):
    shown = of_files(write(tmp_path / "a.dcm", PLANES, **tags))
    for plane, frame, (low, high) in zip(PLANES, shown, ends, strict=True):
        linear = (plane.astype(float) - low) / (high - low) * 255
        np.testing.assert_allclose(frame, np.clip(linear, 0, 255), atol=0.51)


def test_a_window_of_monochrome1_lies_at_the_same_stored_values(tmp_path):
    tags = {"WindowCenter": 500.5, "WindowWidth": 401, "RescaleIntercept": -3, "BitsStored": 12}
    plain = of_files(write(tmp_path / "a.dcm", PLANES, **tags))
    turned = write(tmp_path / "b.dcm", PLANES, PhotometricInterpretation="MONOCHROME1", **tags)
    np.testing.assert_allclose(of_files(turned), 255.0 - plain, atol=1)


def test_windows_of_a_series_follow_the_order_of_its_slices(tmp_path):
    for i in range(4):
        write(tmp_path / f"ct/{9 - i}.dcm", PLANES[0], ImagePositionPatient=[0, 0, i],
              ImageOrientationPatient=[1, 0, 0, 0, 1, 0], WindowCenter=500.5 + 100 * i,
              WindowWidth=401)  # fmt: skip
    means = of_files(tmp_path / "ct").mean((1, 2))
    assert (np.diff(means) < 0).all()


def placed(position, shift, **more):
    """The group of a frame: its place, its intercept, and a window."""
    group = scale(1, shift)
    group.FrameVOILUTSequence = [item(WindowCenter=500.5 + shift, WindowWidth=401)]
    group.PlanePositionSequence = [item(ImagePositionPatient=position)]
    for key, value in more.items():
        setattr(group, key, value)
    return group


def turned(*axes):
    return item(PlaneOrientationSequence=[item(ImageOrientationPatient=list(axes))])


@pytest.mark.parametrize(
    ("heights", "order"),
    [((2, 0, 3, 1), [1, 3, 0, 2]), ((5, 5, 5.0001, 5), [0, 1, 2, 3]), ((1, 0, 1, 0), [1, 3, 0, 2])],
)
def test_frames_lie_in_the_order_of_their_places(tmp_path, heights, order):
    """With their own intercepts and windows; those of one place stay in the order of the file."""
    groups = [placed([0, 0, z], 10 * i) for i, z in enumerate(heights)]
    shared = [turned(1, 0, 0, 0, 1, 0)]
    path = write(tmp_path / "a.dcm", PLANES, PerFrameFunctionalGroupsSequence=groups,
                 SharedFunctionalGroupsSequence=shared)  # fmt: skip
    np.testing.assert_array_equal(load(path), (PLANES + 10.0 * np.arange(4)[:, None, None])[order])
    plain = of_files(write(tmp_path / "p.dcm", PLANES, WindowCenter=500.5, WindowWidth=401))
    np.testing.assert_array_equal(of_files(path), plain[order])


def test_frames_seen_from_the_other_side_lie_the_other_way(tmp_path):
    groups = [placed([0, 0, z], 0) for z in range(4)]
    path = write(tmp_path / "a.dcm", PLANES, PerFrameFunctionalGroupsSequence=groups,
                 SharedFunctionalGroupsSequence=[turned(1, 0, 0, 0, -1, 0)])  # fmt: skip
    np.testing.assert_array_equal(load(path), PLANES[::-1])


def test_frames_without_places_or_of_several_planes_stay_as_they_are(tmp_path):
    across = turned(0, 1, 0, 0, 0, 1).PlaneOrientationSequence
    flat = turned(1, 0, 0, 0, 1, 0)
    for groups in (
        [placed([0, 0, 9 - i], 0) for i in range(3)] + [scale(1, 0)],
        [placed([0, 0, 9 - i], 0) for i in range(3)]
        + [placed([0, 0, 0], 0, PlaneOrientationSequence=across)],
    ):
        path = write(tmp_path / "a.dcm", PLANES, PerFrameFunctionalGroupsSequence=groups,
                     SharedFunctionalGroupsSequence=[flat])  # fmt: skip
        np.testing.assert_array_equal(load(path), PLANES)


def test_what_has_no_window_is_refused(tmp_path, refused):
    plain = write(tmp_path / "a.dcm", PLANES[0])
    refused(["a.dcm", "no window", "data.window"], of_files, plain)
    curve = write(tmp_path / "s.dcm", PLANES[0], WindowCenter=5, WindowWidth=9,
                  VOILUTFunction="SIGMOID")  # fmt: skip
    refused(["s.dcm", "SIGMOID", "data.window=[low,high]"], of_files, curve)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_has_no_data(tmp_path, kind):
    """A border of the padding value or range leaves the rest as it is without the border."""
    signed = PLANES.astype(np.int16) - 1000
    tags = {"PhotometricInterpretation": kind, "RescaleSlope": 2, "RescaleIntercept": -24}
    alone = write(tmp_path / "a.dcm", signed, **tags)
    wide = np.pad(signed, ((0, 0), (0, 0), (0, 2)), constant_values=-2000)
    wide[..., -1] = -1990
    padded = write(tmp_path / "p.dcm", wide, PixelPaddingValue=-2000,
                   PixelPaddingRangeLimit=-1990, **tags)  # fmt: skip
    for one, other in zip(find_images(alone), find_images(padded), strict=True):
        expected, image = read_image(one.image), read_image(other.image)
        np.testing.assert_array_equal(image[:, :8], expected)
        assert not image[:, 8:].any()
    assert not np.ma.isMaskedArray(load(padded, "mask"))


def test_signed_values_tables_and_colours(tmp_path):
    signed = PLANES[0].astype(np.int16) - 1000
    negative = write(tmp_path / "n.dcm", signed, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(load(negative), -1 - signed)
    table = item(LUTDescriptor=[4, 0, 16], ModalityLUTType="HU", LUTData=[10, 20, 40, 80])
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    stored = np.arange(4, dtype=np.uint8).reshape(2, 2).repeat(4, 1)
    steps = write(tmp_path / "t.dcm", stored, ModalityLUTSequence=[table])
    np.testing.assert_array_equal(load(steps), np.array([10, 20, 40, 80])[stored])
    window = {"WindowCenter": 30.5, "WindowWidth": 41, "ModalityLUTSequence": [table]}
    seen = of_files(write(tmp_path / "w.dcm", stored, **window))
    window["PhotometricInterpretation"] = "MONOCHROME1"
    negative = write(tmp_path / "m.dcm", stored, PixelPaddingValue=3, **window)
    np.testing.assert_array_equal(load(negative, "mask"), np.array([80, 70, 50, 10])[stored])
    there = stored != 3
    assert np.abs(of_files(negative)[0][there] - (255.0 - seen[0][there])).max() <= 1
    red, grey = np.zeros((6, 8, 3), np.uint8), np.full((6, 8, 3), 128, np.uint8)
    red[..., 0] = 255
    for name, values, kind in (("r", red, "RGB"), ("y", grey, "YBR_FULL")):
        path = write(tmp_path / f"{name}.dcm", values, PhotometricInterpretation=kind)
        np.testing.assert_array_equal(read_image(path)[0, 0], values[0, 0])
    palette = {
        f"{c}PaletteColorLookupTableDescriptor": [2, 0, 16] for c in ("Red", "Green", "Blue")
    }
    for c, data in (("Red", [0, 255 << 8]), ("Green", [0, 128 << 8]), ("Blue", [7 << 8, 0])):
        palette[f"{c}PaletteColorLookupTableData"] = np.array(data, "<u2").tobytes()
    indices = np.zeros((6, 8), np.uint8)
    indices[2] = 1
    path = write(tmp_path / "p.dcm", indices, PhotometricInterpretation="PALETTE COLOR", **palette)
    assert read_image(path)[[0, 2], 0].tolist() == [[0, 0, 7], [255, 128, 0]]


@pytest.mark.parametrize("name", ["IM{}.DCM", "IM000{}", "1.2.840.113619.{}", "s{}.ima", "{}.dcm"])
def test_a_series_is_one_whatever_its_files_are_called(tmp_path, name):
    """They are named against their positions; a DICOMDIR and a report lie beside them."""
    for i, plane in enumerate(PLANES):
        write(tmp_path / "ct" / name.format(9 - i), plane, ImagePositionPatient=[0, 0, i],
              ImageOrientationPatient=[1, 0, 0, 0, 1, 0], RescaleSlope="",
              RescaleIntercept=-3)  # fmt: skip
    write(tmp_path / "ct/DICOMDIR", PLANES[0])
    images = find_images(tmp_path / "ct")
    assert [r.name for r in images] == [f"ct_{i:04d}" for i in range(4)]
    np.testing.assert_array_equal(load(tmp_path / "ct"), PLANES - 3.0)
    alone = sorted(p for p in (tmp_path / "ct").iterdir() if p.name != "DICOMDIR")
    assert find_images(alone[0])[0].image.read().shape == (6, 8)
    within = find_images(tmp_path)
    assert [r.name for r in within] == [r.name for r in images]
