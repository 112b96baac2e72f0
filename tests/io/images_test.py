"""Reading photos: every common kind of file gives the same upright 8-bit RGB, every broken one
gives one clear error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import MAX_SIDE, read_image, read_labels, upright_file


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth picture with no symmetry, so that every rotation and flip shows."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 2 * (x + y)], -1).astype(np.uint8)


def save(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_rgb_is_read_exactly(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "x.png", picture())), picture())


def test_grey_and_palette_become_rgb(tmp_path):
    grey = read_image(save(tmp_path / "grey.png", picture()[..., 0]))
    assert np.array_equal(grey, np.repeat(picture()[..., :1], 3, axis=2))
    palette = read_image(save(tmp_path / "p.gif", picture(), "P"))
    assert palette.shape == (40, 60, 3) and np.abs(palette.astype(int) - picture()).mean() < 25


def test_cmyk_keeps_its_colours(tmp_path):
    cmyk = read_image(save(tmp_path / "cmyk.jpg", picture(), "CMYK", quality=95))
    assert np.abs(cmyk.astype(int) - picture()).mean() < 4


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.dstack([picture(), np.zeros((40, 60), np.uint8)])
    rgba[:, 30:, 3] = 255
    read = read_image(save(tmp_path / "rgba.png", rgba))
    assert (read[:, :30] == 255).all()
    assert np.array_equal(read[:, 30:], picture()[:, 30:])
    grey_alpha = Image.new("LA", (20, 20), (0, 0))
    grey_alpha.save(tmp_path / "la.png")
    assert (read_image(tmp_path / "la.png") == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    read = read_image(save(tmp_path / f"deep.{suffix}", values))
    assert read.dtype == np.uint8 and read.shape == (40, 60, 3)
    assert np.abs(read[..., 0] - values / 257.0).max() <= 0.5 + 1e-9


def test_floating_point_pixels_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"float\.tif: .*floating-point.*; convert"):
        read_image(save(tmp_path / "float.tif", picture()[..., 0].astype(np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    # How a camera stores an upright picture for each value of the EXIF orientation tag.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "turned.png", np.ascontiguousarray(stored), exif=exif)
    assert np.array_equal(read_image(path), picture())


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg: no such file; check the path"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a directory"):
        read_image(tmp_path)


def test_text_and_empty_files_are_not_images(tmp_path):
    for content in (b"", b"not an image", b"\xff\xd8\xff\xe0broken"):
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(InputError, match=r"x\.jpg: is not an image.*; convert it"):
            read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_files_are_damaged_not_half_read(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, form)
    path = tmp_path / f"half.{form.lower()}"
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    with pytest.raises(InputError, match="half"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_labels, upright_file])
def test_a_picture_of_indices_without_a_palette_is_damaged(tmp_path, read):
    path, form = tmp_path / "x.png", io.BytesIO()
    indices = Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20) % 4)
    indices.convert("P").save(form, "PNG")
    data = form.getvalue()
    start = data.index(b"PLTE") - 4
    length = int.from_bytes(data[start : start + 4], "big") + 12
    path.write_bytes(data[:start] + data[start + length :])
    with pytest.raises(InputError, match=r"x\.png.*no palette.*export the image again"):
        read(path)


@pytest.mark.parametrize("read", [read_image, upright_file])
def test_transparency_of_another_kind_of_picture_is_damage(tmp_path, read):
    """A second header after the pixels, and the transparent colour of its kind."""
    path, form = tmp_path / "x.png", io.BytesIO()
    Image.new("P", (20, 20)).save(form, "PNG")

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0))
    data = form.getvalue()
    end = data.index(b"IEND") - 4
    path.write_bytes(data[:end] + header + chunk(b"tRNS", bytes(6)) + data[end:])
    with pytest.raises(InputError, match=r"x\.png.*damaged.*export the image again"):
        read(path)


def test_one_pixel_and_giant_images_are_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"dot\.png: is only 1 x 1 px; give an image of at least 16 px"
    ):
        read_image(save(tmp_path / "dot.png", picture(1, 1)))
    Image.new("1", (20_000, 40)).save(tmp_path / "wide.png")
    with pytest.raises(
        InputError, match=rf"wide\.png: is 20000 x 40 px; scale it down to at most {MAX_SIDE} px"
    ):
        read_image(tmp_path / "wide.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(
        InputError, match=r"bomb\.png: is larger than 150 megapixels; scale it down"
    ):
        read_image(tmp_path / "bomb.png")


def test_formats_that_run_other_programs_are_refused(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for an EPS file, whatever its suffix."""
    from PIL import EpsImagePlugin

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **_: started.append(args))
    eps = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "x.jpg").write_text(eps)
    for read in (read_image, read_labels, upright_file):
        with pytest.raises(InputError, match="not an image"):
            read(tmp_path / "x.jpg")
    assert not started
