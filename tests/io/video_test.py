"""Clips that PyAV writes here, read again: pixels, times, rotation, damage; and pictures."""

import gc
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.io import video
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.video import is_video, open_clip
from genhmr_jax.io.video_writer import VideoWriter

WIDTH, HEIGHT, COUNT = 96, 64, 24


@pytest.fixture(scope="module")
def av():
    return pytest.importorskip("av")


def picture(number, width=WIDTH, height=HEIGHT):
    """A smooth picture whose corners differ, and whose brightness tells its number."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = 40 + 120 * x + 4 * number, 60 + 130 * y, 90 + 60 * x * y
    return np.stack(channels, -1).round().astype(np.uint8)


def write(av, path, stamps=range(COUNT), rate=24, codec="libx264", prepare=None, **options):
    """A clip of `picture`s; stamps in units of 1 / rate seconds."""
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.gop_size = 8  # several key frames
        if prepare:
            prepare(stream)
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clip(av, tmp_path_factory):
    return write(av, tmp_path_factory.mktemp("clip") / "clip.mp4")


def number_of(pixels):
    """Which `picture` it is: its mean red tells it."""
    return int(round((pixels[..., 0].mean() - picture(0)[..., 0].mean()) / 4))


def test_frames_times_and_pixels(clip):
    source = open_clip(clip)
    assert (source.size, source.fps, source.count) == ((WIDTH, HEIGHT), 24, COUNT)
    for number, frame in enumerate(source):
        assert frame.index == number and frame.time == pytest.approx(number / 24, abs=1e-9)
        assert frame.pixels.dtype == np.uint8 and frame.pixels.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(frame.pixels.astype(int) - picture(number)).mean() < 2.5
    assert number == COUNT - 1 and source.warning == ""


def test_a_part_is_chosen_by_seconds_and_every(clip):
    source = open_clip(clip, start=0.25, end=0.75, every=3)
    assert [frame.index for frame in source] == list(range(6, 18, 3)) and source.count == 4
    assert [number_of(frame.pixels) for frame in source] == list(range(6, 18, 3))
    with pytest.raises(InputError, match=r"clip\.mp4: has no frame from 5 s on"):
        open_clip(clip, start=5)
    for wrong in (dict(every=0), dict(start=2, end=1), dict(fps=0)):
        with pytest.raises(ValueError, match="are needed"):
            open_clip(clip, **wrong)


@pytest.mark.parametrize("first", [1, 7, 8, 9, 23])
def test_reading_starts_again_at_a_frame(clip, first):
    whole = {frame.index: frame.pixels for frame in open_clip(clip)}
    rest = list(open_clip(clip).frames(first))
    assert [frame.index for frame in rest] == list(range(first, COUNT))
    assert all(np.array_equal(frame.pixels, whole[frame.index]) for frame in rest)
    assert list(open_clip(clip).frames(COUNT)) == []


def test_variable_frame_rate(av, tmp_path):
    stamps = [0, 1, 2, 5, 6, 10, 17, 18]
    path = write(av, tmp_path / "variable.mkv", stamps, rate=20)
    source = open_clip(path)
    frames = list(source)
    assert [frame.time for frame in frames] == pytest.approx(np.array(stamps) / 20, abs=5e-4)
    assert source.times == pytest.approx(np.array(stamps) / 20, abs=5e-4)
    assert [number_of(frame.pixels) for frame in frames] == list(range(len(stamps)))
    late = list(open_clip(path, start=0.3).frames())
    assert [frame.index for frame in late] == [4, 5, 6, 7]


def test_times_start_at_the_first_frame(av, tmp_path):
    path = write(av, tmp_path / "late.mkv", [n + 48 for n in range(COUNT)])
    assert [frame.time for frame in open_clip(path)] == pytest.approx(
        np.arange(COUNT) / 24, abs=1e-3
    )


@pytest.mark.parametrize(
    "matrix, turned",
    [
        # A phone held upright: the stored picture is shown a quarter turn clockwise.
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((0, -1, 1, 0), lambda p: np.rot90(p)),
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    ],
)
def test_the_display_matrix_is_applied(clip, tmp_path, matrix, turned):
    """The matrix a, b, u, c, d, ... of the track header is written by hand (ISO 14496-12)."""
    data = bytearray(clip.read_bytes())
    # "tkhd", version and flags, 5 fields of 4 bytes, 8 reserved, 8 of layer and volume: 40 bytes.
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    identity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4")
    assert bytes(data[at : at + 36]) == identity.tobytes()
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    source = open_clip(path, every=10)
    wanted = turned(picture(0))
    assert source.size == wanted.shape[1::-1]
    for frame in source:
        wanted = turned(picture(frame.index)).astype(int)
        assert np.abs(frame.pixels - wanted).mean() < 2.5


def test_pixels_become_square(av, tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = write(av, tmp_path / "wide.mp4", range(3), prepare=wide)
    source = open_clip(path)
    assert source.size == (128, 64)
    (frame, *_) = source
    assert np.abs(frame.pixels.astype(int) - picture(0, 128)).mean() < 2.5


def test_a_file_without_time_stamps_has_a_constant_rate(av, tmp_path):
    path = write(av, tmp_path / "raw.h264", format="h264")
    frames = list(open_clip(path, start=0.5))
    rate = open_clip(path).fps
    assert [frame.time for frame in frames] == pytest.approx(
        [frame.index / rate for frame in frames]
    )
    assert [number_of(frame.pixels) for frame in frames] == [frame.index for frame in frames]
    assert frames[-1].index == COUNT - 1


@pytest.mark.parametrize("name", ["cut.mkv", "cut.avi", "cut.mp4"])
def test_a_truncated_file_is_read_as_far_as_it_goes(av, tmp_path, name):
    front = {"options": {"movflags": "faststart"}} if name.endswith("mp4") else {}
    path = write(av, tmp_path / name, rate=6, codec="mpeg4", **front)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    source = open_clip(path)
    read = [number_of(frame.pixels) for frame in source]
    assert 5 < len(read) < COUNT and read == list(range(len(read)))
    assert name in source.warning and "copy or export" in source.warning


def test_a_damaged_middle_is_passed_over(av, tmp_path):
    path = write(av, tmp_path / "damaged.mkv", codec="libx264")
    with av.open(str(path)) as container:
        packet = list(container.demux(container.streams.video[0]))[8]
        assert packet.is_keyframe
        middle, size = bytes(packet), packet.size
    data = path.read_bytes()
    at = data.index(middle)
    path.write_bytes(data[:at] + bytes([255]) * size + data[at + size :])
    source = open_clip(path)
    read = [frame.index for frame in source]
    assert read[:7] == list(range(7)) and read[-8:] == list(range(16, 24))
    assert len(read) == len(set(read))
    assert ("frames cannot be decoded" in source.warning) == (len(read) < COUNT)


def test_what_is_no_video_is_told(av, tmp_path):
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.mov"
    text.write_text("no video " * 200)
    empty.touch()
    for path in (text, empty):
        with pytest.raises(InputError, match=rf"{path.name}: is no video that can be read"):
            open_clip(path)
    with pytest.raises(InputError, match="no such file"):
        open_clip(tmp_path / "missing.mp4")
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match="has no video stream"):
        open_clip(sound)
    assert not list(tmp_path.glob(".genhmr*"))


def test_a_rate_is_for_pictures_only(clip):
    with pytest.raises(InputError, match="times of their own"):
        open_clip(clip, fps=30)


def test_without_pyav_the_extra_is_named(clip, tmp_path):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from genhmr_jax.io.video import open_clip\n"
        "from genhmr_jax.io.video_writer import VideoWriter\n"
        "for use in (open_clip, lambda path: VideoWriter(path, (8, 8), 5)):\n"
        "    try:\n        use(sys.argv[1])\n"
        "    except ValueError as error:\n        print(error)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(clip)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.count("pip install genhmr_jax[video]") == 2


def save_pictures(folder, names, size=(40, 30)):
    for number, name in enumerate(names):
        pixels = np.full((size[1], size[0], 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(folder / name)


def test_a_folder_of_pictures(tmp_path):
    names = ["frame_1.png", "frame_2.png", "frame_9.png", "frame_10.png", "frame_11.png"]
    save_pictures(tmp_path, names)
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_clip(tmp_path, fps=10, start=0.1, every=2)
    assert (source.size, source.fps, source.count) == ((40, 30), 10, 2)
    assert [(f.index, f.time, f.pixels[0, 0, 0]) for f in source] == [(1, 0.1, 10), (3, 0.3, 30)]
    assert [frame.index for frame in source.frames(first=2)] == [3]
    listed = open_clip([tmp_path / name for name in reversed(names)])
    assert [frame.pixels[0, 0, 0] for frame in listed] == [40, 30, 20, 10, 0]
    assert listed.times == pytest.approx(np.arange(5) / 30)


def test_pictures_of_two_sizes_are_refused(tmp_path):
    save_pictures(tmp_path, ["a.png", "b.png"])
    save_pictures(tmp_path, ["c.png"], (44, 30))
    with pytest.raises(InputError, match=r"c\.png: is 44 x 30 px, but a\.png is 40 x 30 px"):
        list(open_clip(tmp_path))
    for nothing in (tmp_path / "missing", []):
        with pytest.raises(InputError):
            open_clip(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image in this directory"):
        open_clip(tmp_path / "empty")


def test_the_suffix_tells_videos():
    assert all(map(is_video, ["a.mp4", "b.MOV", "c/d.webm", "e.mkv", "f.avi", "g.wmv"]))
    assert not any(map(is_video, ["a.jpg", "b.gif", "c.npz", "mp4"]))


@pytest.mark.parametrize("size", [(96, 64), (95, 63)])
def test_a_written_video_has_these_pixels_and_times(av, tmp_path, size):
    cv2 = pytest.importorskip("cv2")  # a reader that is not PyAV
    path, (width, height) = tmp_path / "written.mp4", size
    with VideoWriter(path, size, 12) as writer:
        for number in range(10):
            writer.write(picture(number, width, height))
    read = cv2.VideoCapture(str(path))
    assert read.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    for number in range(10):
        ok, pixels = read.read()
        assert ok and pixels.shape == (64, 96, 3)
        found = pixels[:height, :width, ::-1].astype(int)
        assert np.abs(found - picture(number, width, height)).mean() < 3
    assert not read.read()[0]
    assert [frame.time for frame in open_clip(path)] == pytest.approx(np.arange(10) / 12, abs=1e-4)


def test_written_frames_keep_given_times(av, tmp_path):
    times = [0, 0.1, 0.35, 1.0]
    with VideoWriter(tmp_path / "a.mp4", (WIDTH, HEIGHT), 10) as writer:
        for number, time in enumerate(times):
            writer.write(picture(number), time)
    assert open_clip(tmp_path / "a.mp4").times == pytest.approx(times, abs=1e-4)


def test_a_failure_leaves_no_video(av, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"a frame of \(10, 10\) px"):
        with VideoWriter(path, (WIDTH, HEIGHT), 10) as writer:
            writer.write(picture(0))
            writer.write(np.zeros((10, 10, 3), np.uint8))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    for wrong in ("a.docx", "missing/a.mp4"):
        with pytest.raises(InputError):
            with VideoWriter(tmp_path / wrong, (WIDTH, HEIGHT), 10):
                pass
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile real.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.ts\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n",
    ],
    ids=["concat", "HLS", "SDP"],
)
def test_a_playlist_opens_no_other_file(tmp_path, clip, playlist):
    """FFmpeg recognises it by its content, and would open what it names."""
    for name in ("real.mp4", "real.ts"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    (tmp_path / "x.mp4").write_text(playlist)
    with pytest.raises(InputError, match="no video that can be read"):
        open_clip(tmp_path / "x.mp4")


def test_a_codec_without_a_decoder_is_refused(clip, tmp_path):
    """FFmpeg gives such a stream no decoder, not even a size."""
    path, content = tmp_path / "unknown.mp4", clip.read_bytes()
    names = [name for name in (b"avc1", b"mp4v") if name in content]
    assert names
    for name in names:
        content = content.replace(name, b"zzzz")
    path.write_bytes(content)
    with pytest.raises(InputError, match="unknown.mp4: has a video stream of a codec that FFmpeg"):
        open_clip(path)


def test_giant_frames_are_refused(clip, monkeypatch):
    """The shape of the pixels in a file can make a frame a thousand times as wide."""
    monkeypatch.setattr(video, "square_size", lambda frame, stream: (1 << 16, frame.height))
    with pytest.raises(InputError, match="has frames of 65536 x"):
        open_clip(clip)


def test_the_first_frame_is_not_kept(av, clip):
    """PyAV keeps a frame whose display matrix is read in a reference cycle: megabytes a clip."""
    gc.collect()
    gc.disable()
    try:
        source = open_clip(clip)
        kept = [one for one in gc.get_objects() if type(one) is av.VideoFrame]
    finally:
        gc.enable()
    assert source.count and not kept


def test_a_header_of_giant_frames_is_refused_before_they_are_decoded(av, tmp_path, monkeypatch):
    """The decoder would ask for their memory."""
    path = tmp_path / "giant.gif"
    pixels = b"\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    path.write_bytes(
        b"GIF89a\x20\x4e\xe0\x2e\x80\x00\x00" + bytes(6) + b"," + bytes(4) + pixels + b";"
    )
    monkeypatch.setattr(video._Video, "_decoded", None)
    with pytest.raises(InputError, match="has frames of 20000 x 12000 px; scale it down"):
        open_clip(path)


def test_a_frame_that_cannot_be_converted_is_passed_over(av, clip, monkeypatch):
    """As one that cannot be decoded; without a first frame there is no clip."""
    source, made = open_clip(clip), []

    class Damaged:
        error = av.error.BlockingIOError

        def __init__(self, frame):
            self.pts = frame.pts

        def reformat(self, **how):
            raise self.error(11, "temporarily unavailable")

    def decoded(self, container, stream):
        for number, frame in enumerate(container.decode(stream)):
            made.append(number)
            yield Damaged(frame) if number in (3, 4) else frame

    monkeypatch.setattr(video._Video, "_decoded", decoded)
    found = [frame.index for frame in source.frames()]
    assert found == [n for n in range(COUNT) if n not in (3, 4)] and made == list(range(COUNT))
    assert "2 frames cannot be decoded" in source.warning
    Damaged.error = av.error.MemoryError
    with pytest.raises(MemoryError):
        list(source.frames())
    monkeypatch.setattr(video._Video, "_pixels", lambda self, frame: None)
    with pytest.raises(InputError, match="no frame that can be decoded"):
        open_clip(clip)
