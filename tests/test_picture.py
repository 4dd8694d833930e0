import contextlib
import io
import threading
import warnings
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from longtake import picture
from longtake.errors import PictureError
from longtake.picture import contact_sheet, cover, load_image, spread


def png(picture, **options):
    data = io.BytesIO()
    picture.save(data, "png", **options)
    return data.getvalue()


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "F", "I", "I;16"]
)
def test_every_mode_becomes_rgb(mode):
    picture = load_image(
        Image.new("L", (5, 4), 1).convert(mode) if mode not in ("I;16",) else Image.new(mode, (5, 4))
    )
    assert (picture.mode, picture.size) == ("RGB", (5, 4))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
def test_files_of_many_formats(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    Image.new("RGB", (20, 10), (200, 40, 80)).save(file)
    for source in (file, str(file)):
        picture = load_image(source)
        assert picture.size == (20, 10)
        # JPEG and WebP are lossy, GIF picks from 256 colours.
        assert np.abs(np.asarray(picture).astype(int) - (200, 40, 80)).max() < 6


@pytest.mark.parametrize("format", ["TIFF", "PPM", "PCX", "TGA", "ICO", "SGI", "JPEG2000", "PDF", "EPS"])
def test_other_formats_are_refused_whatever_the_name_says(tmp_path, format):
    """Pillow opens some fifty formats, and guesses by the content."""
    file = tmp_path / "a.png"
    Image.new("RGB", (20, 10), (200, 40, 80)).save(file, format)
    with pytest.raises(PictureError, match="in a format that is read here: PNG, JPEG, WEBP, BMP, GIF"):
        load_image(file)


def test_of_a_gif_the_first_picture_is_taken(tmp_path):
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert load_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_a_file_without_end_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(picture, "MAX_FILE", 2 * 2**20)
    (tmp_path / "a.png").write_bytes(bytes(3 * 2**20))
    for file in (tmp_path / "a.png", "/dev/zero"):
        with pytest.raises(PictureError, match="larger than 2 MiB"):
            load_image(file)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.rint(ramp / 257.0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png"))[..., 0], expected)
    assert np.array_equal(np.asarray(load_image(ramp))[..., 1], expected)
    assert np.array_equal(np.asarray(load_image(Image.fromarray(ramp.astype(np.int32))))[..., 2], expected)


def test_alpha_lies_on_white():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert load_image(half).getpixel((0, 0)) == (255, 127, 127)
    assert load_image(np.asarray(half)).getpixel((0, 0)) == (255, 127, 127)
    assert load_image(Image.new("LA", (4, 4), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(np.zeros((4, 4, 2), np.uint8)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    assert load_image(palette).getpixel((0, 0)) == (255, 255, 255)
    grey = Image.new("L", (4, 4), 7)
    grey.info["transparency"] = 7
    assert load_image(grey).getpixel((0, 0)) == (255, 255, 255)


def test_exif_turns_the_picture(tmp_path):
    picture = Image.new("RGB", (6, 4), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    turned = load_image(tmp_path / "a.png")
    assert turned.size == (4, 6)
    assert turned.getpixel((3, 0)) == (255, 0, 0)


def test_arrays():
    assert load_image(np.full((3, 4), 9, np.uint8)).getpixel((0, 0)) == (9, 9, 9)
    assert load_image(np.full((3, 4, 1), True)).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(np.full((3, 4, 3), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(np.full((3, 4, 3), 1.1, np.float32)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 4, 3)), "shape"),
        (np.zeros((3, 4, 5)), "shape"),
        (np.zeros((0, 4, 3)), "shape"),
        (np.zeros((3, 4, 3), np.int64), "int64"),
        (np.full((3, 4, 3), 255.0), r"\[0, 1\].*255"),
        (np.full((3, 4, 3), -1.0), r"\[0, 1\].*-1"),
        (np.full((3, 4, 3), np.nan), "nan"),
    ],
)
def test_arrays_that_are_no_pictures(array, words):
    with pytest.raises(PictureError, match=words):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, object(), b"bytes"])
def test_other_things_are_no_pictures(source):
    with pytest.raises(PictureError):
        load_image(source)


def damaged_files():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = png(noise)
    jpeg = io.BytesIO()
    noise.save(jpeg, "jpeg")
    return {
        "empty": (b"", "empty file"),
        "text": (b"this is not a picture\n" * 9, "not a picture"),
        "cut png": (whole[: len(whole) // 2], "damaged"),
        "cut jpeg": (jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "damaged"),
        "cut header": (whole[:20], "not a picture|damaged"),
        "spoiled": (whole[:60] + bytes(200) + whole[260:], "damaged"),
        "only magic": (b"\x89PNG\r\n\x1a\n", "not a picture"),
    }


@pytest.mark.parametrize("kind", damaged_files())
def test_damaged_files_are_one_sentence(tmp_path, kind):
    data, words = damaged_files()[kind]
    file = tmp_path / "a.png"
    file.write_bytes(data)
    with pytest.raises(PictureError, match=words) as error:
        load_image(file)
    assert "a.png" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(PictureError, match="no file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(PictureError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(PictureError, match="cannot be read"):
        load_image("a\0b.png")
    with pytest.raises(PictureError, match="cannot be read"):
        load_image("x" * 5000)


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    file = tmp_path / "bomb.png"
    Image.new("1", (30000, 20000)).save(file)
    assert file.stat().st_size < 10**6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError, match="million"):
            load_image(file)
        # between Pillow's warning at 89 million pixels and its error at twice as many
        Image.new("1", (11000, 10000)).save(file)
        with pytest.raises(PictureError, match="11000 x 10000"):
            load_image(file)


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        if self.path == "/missing.png":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have had enough
            self.wfile.write(
                png(Image.new("RGB", (4, 2), "red")) if self.path == "/a.png" else bytes(3 * 2**20)
            )

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.asked = Site.asked = []
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_addresses(site, monkeypatch):
    assert load_image(f"{site}/a.png").size == (4, 2)
    with pytest.raises(PictureError, match="Not Found"):
        load_image(f"{site}/missing.png")
    with pytest.raises(PictureError, match="not a picture"):
        load_image(f"{site}/zeros")
    monkeypatch.setattr(picture, "MAX_DOWNLOAD", 2 * 2**20)
    with pytest.raises(PictureError, match="larger than 2 MiB"):
        load_image(f"{site}/zeros")
    with pytest.raises(PictureError, match="cannot be fetched"):
        load_image("http://127.0.0.1:1/a.png")
    with pytest.raises(PictureError, match="cannot be fetched"):
        load_image("http://[bad/a.png")


def test_redirects_are_few_and_lead_to_no_other_kind_of_address(site, tmp_path):
    (tmp_path / "a.png").write_bytes(png(Image.new("RGB", (4, 2))))
    assert load_image(f"{site}/to?/to?/a.png").size == (4, 2)
    for place in (f"file://{tmp_path}/a.png", "ftp://127.0.0.1/a.png", "data:image/png;base64,"):
        with pytest.raises(PictureError, match="cannot be fetched"):
            load_image(f"{site}/to?{place}")
    Site.asked.clear()
    with pytest.raises(PictureError, match="cannot be fetched"):
        load_image(f"{site}/{'to?/' * 30}a.png")
    assert len(Site.asked) <= picture.MAX_REDIRECTS + 1
    secure = picture.urllib.request.Request("https://example.org/a.png")
    with pytest.raises(
        OSError, match="which is not followed"
    ):  # what was asked for safely is not fetched openly
        picture._Redirects().redirect_request(secure, None, 302, "", {}, "http://example.org/a.png")


def test_tensors_have_their_channels_first():
    torch = pytest.importorskip("torch")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).movedim(-1, 0)
    for given in (tensor, torch.from_numpy(pixels), (tensor / 255).requires_grad_()):
        assert np.array_equal(np.asarray(load_image(given)), pixels)
    near = np.asarray(load_image((tensor / 255).bfloat16())).astype(int)
    assert np.abs(near - pixels).max() <= 1  # bfloat16 has 8 bits


def test_cover_cuts_the_middle_out():
    picture = Image.new("RGB", (300, 100), "white")
    picture.paste("black", (100, 0, 200, 100))
    middle = np.asarray(cover(picture, 64, 64))
    assert middle.shape == (64, 64, 3)
    assert middle[:, 2:-2].max() < 40  # Lanczos rings at the two edges
    fits = Image.new("RGB", (64, 32))
    assert cover(fits, 64, 32) is fits


@pytest.mark.parametrize("size", [(1, 1), (63, 65), (1000, 17), (17, 1000), (641, 480), (64, 128)])
def test_cover_always_has_the_size_asked_for(size):
    assert cover(Image.new("RGB", size), 96, 64).size == (96, 64)


def test_cover_refuses_a_thread():
    with pytest.raises(PictureError, match="too long"):
        cover(Image.new("L", (60000, 1)), 640, 640)


def test_contact_sheet():
    frames = np.zeros((10, 8, 16, 3), np.uint8)
    frames[:] = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20
    sheet = contact_sheet(frames, columns=4, gap=2)
    assert sheet.size == (4 * 18 + 2, 3 * 10 + 2)
    assert sheet.getpixel((0, 0)) == (255, 255, 255)
    assert sheet.getpixel((2 + 18, 2 + 10)) == (100, 100, 100)  # frame 5 lies in row 1, column 1
    few = contact_sheet(frames, count=3, columns=8, zoom=2)
    assert few.size == (3 * 34 + 2, 16 + 4)
    assert few.getpixel((4 + 68, 4)) == (180, 180, 180)
    with pytest.raises(PictureError):
        contact_sheet([])


@pytest.mark.parametrize("total", [0, 1, 2, 7, 145])
@pytest.mark.parametrize("count", [1, 2, 5, 24])
def test_spread_is_even(total, count):
    numbers = spread(total, count)
    assert len(numbers) == min(total, count) == len(set(numbers))
    assert numbers == sorted(numbers)
    assert all(0 <= number < total for number in numbers)
