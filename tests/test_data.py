"""Files of images, figures."""

import gzip
import os

import numpy as np
import pytest

from pot_semidiscrete import solve_semidiscrete
from pot_semidiscrete.datasets import load_mnist, load_mnist_labels, read_idx
from pot_semidiscrete.plot import plot_cells, plot_history, plot_images
from tests.idx import CODES, idx


def write(path, content, compressed):
    """Write a file, and give its path back."""
    path.write_bytes(gzip.compress(content) if compressed else content)
    return path


compressed = pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])


@compressed
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)], ids=str)
def test_idx_round_trip(shape, dtype, compressed, tmp_path, rng):
    a = (100 * rng.normal(size=shape)).astype(dtype) if dtype != "uint8" else None
    a = rng.integers(256, size=shape).astype(dtype) if a is None else a
    read = read_idx(write(tmp_path / "file", idx(a), compressed))
    np.testing.assert_array_equal(read, a)
    assert read.dtype == dtype
    assert read.dtype.isnative
    assert read.flags.writeable


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_idx_path_may_be_a_string(kind, tmp_path):
    path = write(tmp_path / "file", idx(np.arange(3, dtype="uint8")), False)
    assert read_idx(kind(path)).tolist() == [0, 1, 2]


GOOD = idx(np.arange(12, dtype="int32").reshape(3, 4))


@compressed
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        b"not an IDX file",
        b"\x89PNG\r\n\x1a\n",
        b"\0\0\x07\1\0\0\0\0",
        b"\0\1" + GOOD[2:],
        GOOD[:6],
        GOOD[:8],
        GOOD[:-4],
        GOOD[:-1],
        GOOD + b"\0\0\0\0",
        GOOD + b"\0",
    ],
    ids=[
        "empty",
        "short",
        "text",
        "png",
        "dtype",
        "magic",
        "half-shape",
        "no-second-size",
        "a-value-less",
        "a-byte-less",
        "a-value-more",
        "a-byte-more",
    ],
)
def test_bad_idx_is_refused(content, compressed, tmp_path):
    path = write(tmp_path / "bad-file", content, compressed)
    with pytest.raises(ValueError, match=r"bad-file.*expected.*received"):
        read_idx(path)


@pytest.mark.parametrize("kept", [2, 5, 15, -10, -1])
def test_gz_cut_short_is_refused(kept, tmp_path):
    path = tmp_path / "bad-file"
    path.write_bytes(gzip.compress(GOOD)[:kept])
    with pytest.raises(ValueError, match=r"bad-file.*expected.*received"):
        read_idx(path)


def test_corrupt_gz_is_refused(tmp_path):
    content = bytearray(gzip.compress(GOOD))
    content[-6] ^= 255  # in the check sum
    path = tmp_path / "bad-file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad-file.*expected.*received"):
        read_idx(path)


def test_missing_idx_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")


def fake_mnist(folder, compressed, rng):
    """Write images of noise, and give them back by part."""
    images = {part: rng.integers(256, size=(n, 6, 5)).astype("uint8") for part, n in PARTS.items()}
    suffix = ".gz" if compressed else ""
    for part, a in images.items():
        write(folder / f"{part}-images-idx3-ubyte{suffix}", idx(a), compressed)
    return images


PARTS = {"train": 7, "t10k": 3}


@compressed
def test_mnist_is_read_as_images_in_the_unit_interval(compressed, tmp_path, rng):
    images = fake_mnist(tmp_path, compressed, rng)
    train, test = load_mnist(tmp_path)
    for read, written in ((train, images["train"]), (test, images["t10k"])):
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, written / 255, rtol=1e-6)
    assert load_mnist(str(tmp_path))[0].shape == (7, 6, 5)


@pytest.mark.parametrize("missing", PARTS)
def test_missing_mnist_file_is_named(missing, tmp_path, rng):
    fake_mnist(tmp_path, True, rng)
    (tmp_path / f"{missing}-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"{missing}-images-idx3-ubyte"):
        load_mnist(tmp_path)


@compressed
def test_mnist_labels_are_integers(compressed, tmp_path, rng):
    labels = {part: rng.integers(10, size=n).astype("uint8") for part, n in PARTS.items()}
    suffix = ".gz" if compressed else ""
    for part, a in labels.items():
        write(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", idx(a), compressed)
    for read, written in zip(load_mnist_labels(tmp_path), labels.values(), strict=True):
        assert read.dtype == np.int64
        np.testing.assert_array_equal(read, written)
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        load_mnist_labels(tmp_path)


@pytest.mark.skipif(
    "POT_SEMIDISCRETE_MNIST" not in os.environ,
    reason="POT_SEMIDISCRETE_MNIST does not name a folder with MNIST's IDX files",
)
def test_real_mnist():
    train, test = load_mnist(os.environ["POT_SEMIDISCRETE_MNIST"])
    assert train.shape == (60_000, 28, 28)
    assert test.shape == (10_000, 28, 28)
    for images in (train, test):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0.0, 1.0)
    assert 0.12 < train.mean() < 0.14  # 0.1307, as everybody's normalisation has it


# Figures.


@pytest.fixture
def axes():
    """Axes of a figure that is drawn to nowhere; what was put into them is drawn at the end."""
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    yield axes
    figure.canvas.draw()
    plt.close("all")


def history(n, sign=1.0):
    """That of a training of n steps, with five looks."""
    looks = np.arange(1, n + 1, max(1, n // 5))
    return {
        "loss": sign * np.linspace(2, 1, n),
        "seconds": np.arange(n, dtype=float),
        "chi2_step": looks,
        "chi2": np.linspace(0.1, -0.01, len(looks)),
    }


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("n", [0, 1, 2, 49, 51, 500])
def test_history_is_drawn(n, sign, axes):
    drawn = plot_history(history(n, sign), axes)
    assert list(drawn) == list(axes)
    raw, chi2 = axes[0].lines[0], axes[1].lines[0]
    np.testing.assert_array_equal(raw.get_ydata(), history(n, sign)["loss"])
    assert len(chi2.get_ydata()) == len(history(n)["chi2"])
    assert (np.asarray(chi2.get_ydata()) >= 0).all()


@pytest.mark.usefixtures("axes")
def test_history_makes_its_own_axes():
    assert len(plot_history(history(10))) == 2


@pytest.mark.parametrize("columns", [1, 4, 12])
@pytest.mark.parametrize("n", [1, 3, 4, 12, 13, 30])
def test_every_image_is_drawn(n, columns, axes):
    """Few, or not a whole number of rows: each image is black on the white of the frame."""
    plot_images(np.ones((n, 4, 3)), axes[0], columns=columns, title="images")
    (image,) = axes[0].images
    drawn = np.asarray(image.get_array())
    assert (drawn == 0).all(axis=-1).sum() == n * 4 * 3
    assert axes[0].get_title() == "images"


def test_images_are_drawn_in_reading_order(axes):
    images = np.arange(6)[:, None, None] / 10 * np.ones((6, 2, 2))
    plot_images(images, axes[0], columns=3)
    drawn = 1 - np.asarray(axes[0].images[0].get_array())
    np.testing.assert_allclose(drawn[::3, ::3, 0], [[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]], atol=1e-12)


def test_images_in_colour_are_drawn_as_they_are(axes):
    colors = np.eye(3)[:, :, None, None] * np.ones((3, 3, 2, 2))
    plot_images(colors, axes[0], columns=3)
    np.testing.assert_array_equal(np.asarray(axes[0].images[0].get_array())[0, ::3], np.eye(3))
    with pytest.raises(ValueError, match="images: expected 3 channels, or grey ones, received"):
        plot_images(colors[:, :2], axes[0])


def test_images_out_of_range_are_clipped(axes):
    plot_images(np.array([-1.0, 2.0])[:, None, None] * np.ones((2, 2, 2)), axes[0], columns=2)
    drawn = np.asarray(axes[0].images[0].get_array())
    assert (drawn.min(), drawn.max()) == (0.0, 1.0)


def test_cells_are_drawn_in_the_colours_of_their_atoms(axes):
    """Two atoms, and the half-planes nearer to one of them; with regularisation the shares of both."""
    atoms, colors = np.array([[0.25, 0.5], [0.75, 0.5]]), np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    result = solve_semidiscrete(atoms, "unif", tol=0.01, random_state=0)
    plot_cells(result, axes[0], (0.0, 1.0, -1.0, 2.0), colors, n_pixels=10)
    drawn = np.asarray(axes[0].images[0].get_array())
    assert drawn.shape == (10, 10, 3)
    np.testing.assert_array_equal(drawn[:, :5], np.broadcast_to(colors[0], (10, 5, 3)))
    np.testing.assert_array_equal(drawn[:, 5:], np.broadcast_to(colors[1], (10, 5, 3)))
    result = solve_semidiscrete(atoms, "unif", reg=0.1, tol=0.01, random_state=0)
    plot_cells(result, axes[1], n_pixels=4)
    drawn = np.asarray(axes[1].images[0].get_array())
    chi = result.atom_weights(np.array([[0.125, 0.375]]))[0]
    assert 0.5 < chi[0] < 1.0
    import matplotlib.pyplot as plt

    np.testing.assert_allclose(drawn[1, 0], chi @ plt.get_cmap("tab20")([0, 1])[:, :3], rtol=1e-6)
