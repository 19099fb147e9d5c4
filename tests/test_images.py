"""Pictures of your own: a folder is a class, sizes are made one, nothing is left out in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.data.images import image_folder
from trainer.data.tensors import TensorData


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Of one colour each: red tells the class, green the picture."""
    for label, name in enumerate(["cat", "dog", "owl"]):
        (tmp_path / name).mkdir()
        for i in range(6):
            size = (8 + i, 20 - i)
            kind = "png" if i % 2 else "bmp"
            Image.new("RGB", size, (50 * label, 10 * i, 0)).save(tmp_path / name / f"{i}.{kind}")
    return tmp_path


def colours(data: TensorData) -> list[tuple[int, int, int]]:
    """(label, red, green) of every picture."""
    images, labels = (torch.cat(parts) for parts in zip(data.train, data.val, strict=True))
    pixels = (255 * images).round().int()
    assert torch.equal(pixels, pixels[:, :, :1, :1].expand(pixels.shape))  # resized, still one colour
    both = zip(labels.tolist(), pixels[:, 0, 0, 0].tolist(), pixels[:, 1, 0, 0].tolist(), strict=True)
    return sorted(both)


def test_every_picture_is_in_one_part_once_with_the_class_of_its_folder(pictures: Path) -> None:
    data = image_folder(str(pictures), size=12)
    assert (data.input_shape, data.output_shape) == ((3, 12, 12), (3,))
    assert colours(data) == [(c, 50 * c, 10 * i) for c in range(3) for i in range(6)]
    assert data.provenance["classes"] == ["cat", "dog", "owl"]


def test_pictures_may_be_grey(pictures: Path) -> None:
    (pictures / "cat" / ".DS_Store").write_bytes(b"hidden files are left out")
    data = image_folder(str(pictures), size=4, channels=1)
    assert data.input_shape == (1, 4, 4)
    assert data.provenance["train"] + data.provenance["val"] == 18


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_kind_of_8_bits_becomes_colour(mode: str, pictures: Path) -> None:
    white = Image.new("RGB", (5, 5), "white").convert(mode)
    white.save(pictures / "owl" / ("white.tiff" if mode in ("CMYK", "YCbCr") else "white.png"))
    assert (2, 255, 255) in colours(image_folder(str(pictures), size=4))


def test_a_picture_is_turned_as_its_camera_was(pictures: Path) -> None:
    half = Image.fromarray(np.repeat(np.uint8([[255, 0]]), 2, 0).repeat(4, 0).repeat(4, 1))
    turned = Image.Exif()
    turned[0x0112] = 6  # shown rotated by a quarter
    half.save(pictures / "owl" / "half.png", exif=turned)
    data = image_folder(str(pictures), size=8)
    images = torch.cat([data.train[0], data.val[0]])
    (found,) = images[images.amax((1, 2, 3)) == 1]
    assert (found[0, 0] == found[0, 0, 0]).all()  # the rows are of one colour now
    assert found[0, 0, 0] != found[0, -1, 0]


def test_the_order_of_a_folder_does_not_matter(pictures: Path) -> None:
    first = image_folder(str(pictures))
    (pictures / "cat" / "0.bmp").rename(pictures / "cat" / "x.bmp")
    (pictures / "cat" / "x.bmp").rename(pictures / "cat" / "0.bmp")
    second = image_folder(str(pictures), seed=3)
    assert first.provenance == second.provenance
    assert torch.equal(first.val[0], second.val[0])


def test_a_picture_that_cannot_be_read_is_named(pictures: Path) -> None:
    wide = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    bad = pictures / "dog" / "bad.png"
    whole = (pictures / "dog" / "1.png").read_bytes()
    for content in (b"", b"text", whole[:40], whole[:-30]):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"dog/bad\.png must be a picture that can be read"):
            image_folder(str(pictures))
    wide.save(bad)
    with pytest.raises(ValueError, match=r"dog/bad\.png must .* more than 8 bits"):
        image_folder(str(pictures))
    bad.unlink()
    bad.mkdir()
    with pytest.raises(ValueError, match=r"dog/bad\.png must be a picture"):
        image_folder(str(pictures))
