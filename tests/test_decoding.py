"""Image files to pixels: the same for all ways to store a scene."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from export_models import encode, smooth_pixels
from PIL import Image, ImageOps

from keras_topo.decoding import decode, images_from_bytes, resized
from keras_topo.decoding.images import _first_bits

pytestmark = pytest.mark.tensorflow_only

MAX_PIXELS = 100_000
PIXELS = smooth_pixels()
# Transforms upright pixels to those that a camera stores: the inverse of
# `ImageOps.exif_transpose`.
TURNS = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}}


def read(encoded, channels=3, sample_bits=16):
    found = decode(
        tf.constant(encoded), "file", channels, MAX_PIXELS, sample_bits
    )
    return found.numpy()


def exif(orientation, endian="<", kind=3, count=1, others=()):
    """A block of EXIF with the orientation after other tags."""
    entries = [struct.pack(endian + "HHII", tag, 4, 1, 7) for tag in others]
    value = struct.pack(
        endian + ("HH" if kind == 3 else "I"),
        *((orientation, 0) if kind == 3 else (orientation,)),
    )
    head = struct.pack(endian + "HHI", 274, kind, count)
    entries.append(head + value)
    order = b"II" if endian == "<" else b"MM"
    directory = struct.pack(endian + "H", len(entries)) + b"".join(entries)
    return order + struct.pack(endian + "HI", 42, 8) + directory + bytes(4)


def in_jpeg(jpeg, block, before=b"", name=b"Exif\0\0"):
    """A JPEG with a segment APP1, after other segments."""
    size = struct.pack(">H", 2 + len(name) + len(block))
    start = 2 + 2 + int.from_bytes(jpeg[4:6], "big")  # After APP0.
    segment = b"\xff\xe1" + size + name + block
    return jpeg[:start] + before + segment + jpeg[start:]


def in_png(png, block, last=False):
    """A PNG with a chunk `eXIf`, after IHDR or before IEND."""
    content = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + content
    chunk += struct.pack(">I", zlib.crc32(content))
    place = len(png) - 12 if last else 33
    return png[:place] + chunk + png[place:]


@pytest.mark.parametrize("orientation", TURNS)
def test_turned_pixels_are_upright(orientation):
    """In both byte orders, and in agreement with Pillow."""
    stored = np.ascontiguousarray(TURNS[orientation](PIXELS))
    for file_format, options in LOSSLESS.items():
        for endian in "<>":
            block = Image.Exif()
            block.endian = endian
            block[271], block[274] = "a camera", orientation
            encoded = encode(stored, file_format, exif=block, **options)
            np.testing.assert_array_equal(read(encoded), PIXELS)
            opened = Image.open(io.BytesIO(encoded))
            np.testing.assert_array_equal(
                ImageOps.exif_transpose(opened), PIXELS
            )
    plain = encode(stored, "JPEG", quality=95)
    turned = in_jpeg(plain, exif(orientation, ">"))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    assert np.abs(read(turned) - np.array(expected, int)).max() <= 10
    # The pixels of the same file without EXIF, rotated.
    assert TURNS[orientation](read(turned)).tobytes() == read(plain).tobytes()


JPEG, PNG = encode(PIXELS, "JPEG"), encode(PIXELS, "PNG")
WEBP = encode(PIXELS, "WEBP", exif=exif(6))
FILLED = b"\xff\xfe\0\4hi" + b"\xff" * 9
PROFILE = b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000)
FOUND = {
    "jpeg, II": in_jpeg(JPEG, exif(6)),
    "jpeg, MM": in_jpeg(JPEG, exif(6, ">")),
    "jpeg, a long": in_jpeg(JPEG, exif(6, ">", kind=4)),
    "jpeg, after others": in_jpeg(JPEG, exif(6), FILLED + PROFILE * 3),
    "jpeg, after XMP": in_jpeg(
        in_jpeg(JPEG, exif(6)), b"<x/>", name=b"http://ns.adobe.com/xap/1.0/\0"
    ),
    "jpeg, many tags": in_jpeg(JPEG, exif(6, others=range(1, 200))),
    "png": in_png(PNG, exif(6)),
    "png, at its end": in_png(PNG, exif(6, ">"), last=True),
    "webp": WEBP,
    "webp, as in a JPEG": encode(PIXELS, "WEBP", exif=b"Exif\0\0" + exif(6)),
}


@pytest.mark.parametrize("where", FOUND)
def test_where_an_orientation_is_found(where):
    plain = {"j": JPEG, "p": PNG, "w": encode(PIXELS, "WEBP")}[where[0]]
    np.testing.assert_array_equal(read(FOUND[where]), np.rot90(read(plain), -1))


def cut(file):
    """A JPEG whose EXIF block claims too large a size."""
    place = file.index(b"\xff\xe1") + 2
    return file[:place] + b"\0\x10" + file[place + 2 :]


NONE = {
    "0": exif(0),
    "9": exif(9),
    "65535": exif(65535),
    "two of it": exif(6, count=2),
    "of another type": exif(6, kind=3).replace(
        struct.pack("<HHI", 274, 3, 1), struct.pack("<HHI", 274, 2, 1)
    ),
    "no byte order": b"XX" + exif(6)[2:],
    "not 42": exif(6)[:2] + b"\x2b" + exif(6)[3:],
    "a directory beyond the end": exif(6)[:4] + b"\xff\xff\xff\x7f",
    "a directory far beyond": exif(6)[:4] + b"\xff\xff\xff\xff",
    "half of it": exif(6)[:16],
    "too many tags": exif(6, others=[1] * 1100),
    "nothing": b"",
}


@pytest.mark.parametrize("block", NONE)
def test_damaged_exif_is_upright(block):
    """For each kind of damage, in each kind of file."""
    for plain, encoded in (
        (JPEG, in_jpeg(JPEG, NONE[block])),
        (PNG, in_png(PNG, NONE[block])),
    ):
        np.testing.assert_array_equal(read(encoded), read(plain))


def test_an_orientation_beyond_so_many_segments_is_not_looked_for():
    segment = b"\xff\xfe\0\3x"
    near = in_jpeg(JPEG, exif(6), segment * 200)
    far = in_jpeg(JPEG, exif(6), segment * 300)
    np.testing.assert_array_equal(read(near), np.rot90(read(JPEG), -1))
    np.testing.assert_array_equal(read(far), read(JPEG))


# --------------------------------------------------------------- other kinds


ENCODINGS = [
    ("PNG", "P"),
    ("BMP", "P"),
    ("BMP", "1"),
    ("BMP", "L"),
    ("BMP", "RGB"),
    ("BMP", "RGBA"),
    ("GIF", "P"),
    ("GIF", "L"),
    ("WEBP", "RGB"),
    ("WEBP", "RGBA"),
]


@pytest.mark.parametrize(("file_format", "mode"), ENCODINGS)
def test_colors_are_those_that_pillow_reads(file_format, mode):
    image = Image.fromarray(PIXELS)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    stream = io.BytesIO()
    image.convert(mode).save(stream, file_format)
    opened = Image.open(stream)
    for channels, target in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        expected = np.array(opened.convert(target), int)
        found = read(stream.getvalue(), channels)
        # Luma is rounded differently.
        difference = np.abs(found - expected.reshape(found.shape)).max()
        assert difference <= (1 if channels == 1 else 0), target


def bitmap(indices, palette, bits, top_down=False, padding=b""):
    """A BMP with a palette."""
    height, width = indices.shape
    rows = []
    for row in indices:
        text = "".join(f"{index:0{bits}b}" for index in row)
        text += "0" * (-len(text) % 32)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    data = b"".join(rows if top_down else rows[::-1])
    colors = b"".join(bytes([*color[::-1], 0]) for color in palette)
    offset = 54 + len(colors)
    head = struct.pack("<2sIII", b"BM", offset + len(data), 0, offset)
    head += struct.pack(
        "<IiiHHIIIIII",
        *(40, width, -height if top_down else height, 1, bits, 0),
        *(len(data), 0, 0, len(palette), 0),
    )
    return head + colors + data + padding


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("top_down", [False, True])
def test_bitmaps_of_a_palette(bits, top_down):
    """With odd widths, fewer colors than bits allow, and padding."""
    rng = np.random.default_rng(0)
    colors = min(2**bits, 11)
    palette = rng.integers(0, 256, (colors, 3))
    indices = rng.integers(0, colors, (5, 7))
    encoded = bitmap(indices, palette.tolist(), bits, top_down, b"\0\0")
    np.testing.assert_array_equal(read(encoded), palette[indices])


@pytest.mark.parametrize("alpha", [0, 0xFF000000])
@pytest.mark.parametrize("size", [40, 52, 56, 108])
def test_alpha_of_a_bitmap_has_a_mask_of_its_own(size, alpha):
    """Headers of 40 and 52 bytes have no place for one."""
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, alpha)
    behind = masks[: 12 if size < 56 else 16].ljust(size - 40, b"\0")
    offset = 14 + 40 + len(behind)
    head = struct.pack("<2sIII", b"BM", offset + 16, 0, offset)
    head += struct.pack("<IiiHHIIIIII", size, 2, 2, 1, 32, 3, 16, *(4 * (0,)))
    encoded = head + behind + bytes([30, 20, 10, 128]) * 4
    expected = 128 if alpha and size >= 56 else 255
    found = read(encoded, 4)
    np.testing.assert_array_equal(found[0, 0], [10, 20, 30, expected])
    if size != 52:  # Pillow knows no such header.
        image = Image.open(io.BytesIO(encoded)).convert("RGBA")
        np.testing.assert_array_equal(found, image)


def test_a_bitmap_of_no_bits_is_named():
    bits = bitmap(np.zeros((2, 2), int), [[0, 0, 0]], 8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="BMP of 0 bits"):
        read(bits[:28] + b"\0\0" + bits[30:])


def test_red_is_red():
    """E6: an index of a palette was taken for a shade of gray."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    for file_format in ("BMP", "PNG", "GIF"):
        stream = io.BytesIO()
        image.save(stream, file_format)
        assert (read(stream.getvalue()) == [255, 0, 0]).all()


def test_samples_of_16_bits():
    samples = np.arange(4096, dtype="uint16").reshape(64, 64)
    stream = io.BytesIO()
    Image.fromarray(samples).save(stream, "PNG")
    for bits, expected in (
        (16, samples >> 8),
        (12, samples >> 4),
        (10, np.minimum(samples >> 2, 255)),
        (8, np.minimum(samples, 255)),
    ):
        found = _first_bits(tf.constant(samples[..., None]), bits)
        np.testing.assert_array_equal(found[..., 0], expected)
        if bits in (12, 16):
            found = read(stream.getvalue(), 3, bits)
            expected = expected[..., None].repeat(3, 2)
            np.testing.assert_array_equal(found, expected)
    # Alpha uses all its bits, and 8-bit images do not change.
    deep = tf.constant([[[4095, 4095, 0, 65535]]], tf.uint16)
    np.testing.assert_array_equal(_first_bits(deep, 12), [[[255, 255, 0, 255]]])
    np.testing.assert_array_equal(read(PNG, 3, 12), PIXELS)


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (30, 20), (k, 0, 255)) for k in range(40)]
    stream = io.BytesIO()
    frames[7].save(stream, "GIF", save_all=True, append_images=frames)
    assert (read(stream.getvalue()) == [7, 0, 255]).all()


@pytest.mark.parametrize("left_top", [(0, 0), (4, 3), (9, 8)])
def test_a_frame_stands_at_its_place_on_the_screen_of_a_gif(left_top):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (6, 7), "uint8"), "P")
    image.putpalette(rng.integers(0, 256, 768).tolist())
    stream = io.BytesIO()
    image.save(stream, "GIF")
    whole = stream.getvalue()
    start = whole.index(b"\x2c", 13 + 3 * 2 ** (whole[10] % 8 + 1))
    left, top = left_top
    encoded = (
        whole[:6]
        + struct.pack("<HH", 12, 10)
        + whole[10 : start + 1]
        + struct.pack("<HH", left, top)
        + whole[start + 5 :]
    )
    found = read(encoded)
    # Where the frame goes beyond the screen, there is more of it.
    assert found.shape == (max(10, top + 6), max(12, left + 7), 3)
    place = np.s_[top : top + 6, left : left + 7]
    np.testing.assert_array_equal(found[place], image.convert("RGB"))
    if left_top != (9, 8):
        opened = np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))
        np.testing.assert_array_equal(found[place], opened[place])
    found[place] = 0
    assert not found.any()
    assert (read(encoded, 4)[..., 3] == 255).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="10 x 12|14 x 16"):
        decode(tf.constant(encoded), "file", 3, 10 * 12 - 1)


def test_jpegs_of_many_scans_are_refused():
    """Each goes over the whole image, and may be a few bytes long."""
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert("L").save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    places = [k for k in range(len(whole)) if whole[k : k + 2] == b"\xff\xda"]
    assert 3 < len(places) < 20 and read(whole).shape == PIXELS.shape
    scan = whole[places[1] : places[2]]
    many = whole[: places[2]] + 200 * scan + whole[places[2] :]
    with pytest.raises(tf.errors.InvalidArgumentError, match="a JPEG of 2.. "):
        read(many)


def test_the_same_pixels_alone_and_in_a_batch():
    """A server resizes as training does."""
    files = [JPEG, PNG, FOUND["jpeg, II"], WEBP, encode(PIXELS, "BMP")]
    batch = images_from_bytes(tf.constant(files), (12, 9, 3), MAX_PIXELS)
    for file, pixels in zip(files, batch, strict=True):
        alone = resized(read(file), (12, 9))
        np.testing.assert_array_equal(alone, pixels)
        np.testing.assert_array_equal(alone, np.round(alone))


@pytest.mark.parametrize("place", ["before", "inside"])
def test_gifs_of_many_small_blocks_are_refused(place):
    """Blocks are read one by one: 120 kB would take seconds."""
    whole = encode(PIXELS, "GIF", "P")
    assert read(whole).shape == PIXELS.shape
    blocks = b"\1a" * 60_000 + b"\0"
    comment = b"\x21\xfe" + blocks
    start = whole.index(b"\x2c", 13 + 3 * 2 ** (whole[10] % 8 + 1))
    if place == "before":
        damaged = whole[:start] + comment + whole[start:]
    else:
        described = whole[start : start + 10]
        damaged = whole[:start] + described + b"\x08" + blocks + b"\x3b"
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="without a whole first frame"
    ):
        read(damaged)
