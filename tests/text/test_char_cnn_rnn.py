"""The paper's own text encoder: what it reads, what it computes, and the file it lives in."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from stackgan_dist.errors import UserError
from stackgan_dist.text import SentenceError, check_encoder, encoder_name, load_encoder
from stackgan_dist.text.char_cnn_rnn import ALPHABET, LENGTH, CharCNNRNN, CharCNNRNNEncoder, from_file, spell, to_file
from stackgan_dist.text.files import find_file, has_file, keep_file, name_of


@pytest.fixture(scope="module")
def network() -> CharCNNRNN:
    torch.manual_seed(0)
    return CharCNNRNN(width=16, dim=8)


def test_its_size_is_that_of_the_published_one() -> None:
    with torch.device("meta"):
        published = CharCNNRNN()
    layers = {name: sum(p.numel() for p in layer.parameters()) for name, layer in published.named_children()}
    # REFERENCE.md 1.8: 70 -> 384 -> 512 -> 512 with kernels of 4, a cell with three gates of 512 + 512, 512 -> 1024
    assert layers["convolutions"] == (70 * 4 + 1) * 384 + (384 * 4 + 1) * 512 + (512 * 4 + 1) * 512
    assert sum(layers.values()) - layers["convolutions"] - layers["projection"] == 3 * (512 + 1 + 512 + 1) * 512
    assert layers["projection"] == 513 * 1024
    assert sum(layers.values()) == 4_045_184


def test_eighteen_places_remain(network: CharCNNRNN) -> None:
    assert network.convolutions(torch.zeros(2, len(ALPHABET), LENGTH)).shape == (2, 16, 18)
    assert network(torch.zeros(3, LENGTH, dtype=torch.uint8)).shape == (3, 8)


def test_the_alphabet_is_the_authors() -> None:
    assert (len(ALPHABET), len(set(ALPHABET)), LENGTH) == (70, 69, 201)
    assert spell(["az09- "])[0, :6].tolist()[:5] == [1, 26, 27, 36, 60]  # the hyphen by its later place
    assert spell(["a b"])[0, :4].tolist() == [1, 70, 2, 0]


@pytest.mark.parametrize(
    ("sentence", "plain"),
    [
        ("A Red BIRD", "a red bird"),
        ("  a\tred \n bird ", "a red bird"),
        ("crème brûlée, naïve Ångström", "creme brulee, naive angstrom"),
        ("it’s “white” – or so", 'it\'s "white" - or so'),
        ("ﬁne ½", "fine 1\u20442"),
    ],
)
def test_what_people_write_is_made_plain(sentence: str, plain: str) -> None:
    np.testing.assert_array_equal(spell([sentence]), spell([plain]))
    assert 0 < np.count_nonzero(spell([sentence])) <= len(plain)


def test_unknown_characters_leave_their_place_empty() -> None:
    assert spell(["a\U0001f33bb"])[0, :4].tolist() == [1, 0, 2, 0]
    assert spell(["a я б b"])[0, :8].tolist() == [1, 70, 0, 70, 0, 70, 2, 0]


@pytest.mark.parametrize("sentence", ["", " \n ", "\U0001f33b", "красный цветок", "赤い 花"])
def test_a_sentence_without_known_characters_is_refused(sentence: str, network: CharCNNRNN) -> None:
    with pytest.raises(SentenceError, match="none of the characters"):
        CharCNNRNNEncoder(network, "x").encode(["a bird", sentence])


def test_what_lies_beyond_201_characters_is_cut_off() -> None:
    long = "ab" * 150
    np.testing.assert_array_equal(spell([long]), spell([long[:201]]))
    assert np.count_nonzero(spell([long[:201]])) == 201
    assert np.count_nonzero(spell([long[:200]])) == 200


def test_it_computes_what_the_paper_s_cell_does(network: CharCNNRNN) -> None:
    """Reed's cell by hand: the state is reset before the product, and begins as the first candidate."""
    network = network.double()
    rows = torch.from_numpy(spell(["this bird has a red crown and white wings"]))
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}

    def linear(name: str, x: np.ndarray, part: int) -> np.ndarray:
        chosen = slice(16 * part, 16 * (part + 1))
        return weights[f"{name}.weight"][chosen] @ x + weights[f"{name}.bias"][chosen]

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    one_hot = np.zeros((LENGTH, 70))
    for place, number in enumerate(rows[0].tolist()):
        if number:
            one_hot[place, number - 1] = 1
    x = one_hot
    for layer in (0, 3, 6):
        kernel, bias = weights[f"convolutions.{layer}.weight"], weights[f"convolutions.{layer}.bias"]
        x = np.stack([np.einsum("oik,ki->o", kernel, x[t : t + 4]) + bias for t in range(len(x) - 3)]).clip(min=0)
        if layer < 6:
            x = np.stack([x[t : t + 3].max(axis=0) for t in range(0, len(x) - 2, 3)])
    states = [np.tanh(linear("from_input", x[0], 2))]
    for place in x[1:]:
        h = states[-1]
        update = sigmoid(linear("from_input", place, 0) + linear("gates_from_state", h, 0))
        reset = sigmoid(linear("from_input", place, 1) + linear("gates_from_state", h, 1))
        candidate = np.tanh(linear("from_input", place, 2) + linear("candidate_from_state", reset * h, 0))
        states.append(update * candidate + (1 - update) * h)
    expected = weights["projection.weight"] @ np.mean(states, axis=0) + weights["projection.bias"]
    np.testing.assert_allclose(network(rows)[0].detach().numpy(), expected, rtol=1e-10)
    network.float()


def test_embeddings_have_the_promised_scale_and_order(network: CharCNNRNN) -> None:
    encoder = CharCNNRNNEncoder(network, "x")
    sentences = [f"a bird with {number} spots" for number in range(40)]
    embeddings = encoder.encode([*sentences, sentences[7]])
    assert embeddings.shape == (41, 8)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.mean(embeddings**2, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(embeddings[40], embeddings[7])
    np.testing.assert_allclose(encoder.encode(sentences[7:8])[0], embeddings[7], atol=1e-5)
    assert encoder.encode([]).shape == (0, 8)


class TestFile:
    def test_it_comes_back_the_same_under_the_name_of_its_digest(self, network: CharCNNRNN, tmp_path: Path) -> None:
        data = to_file(network)
        assert data == to_file(from_file(data, "here"))
        (tmp_path / "text_encoder.pt").write_bytes(data)
        for spec in (tmp_path, tmp_path / "text_encoder.pt"):
            encoder = load_encoder(str(spec))
            assert encoder.name == name_of(data) == encoder_name(str(spec))
            assert has_file(encoder.name)
        sentence = ["a red bird"]
        expected = CharCNNRNNEncoder(network, "x").encode(sentence)
        np.testing.assert_array_equal(load_encoder(str(tmp_path)).encode(sentence), expected)

    def test_what_is_kept_is_found_by_name(self, network: CharCNNRNN, tmp_path: Path) -> None:
        data = to_file(network)
        name = name_of(data)
        keep_file(name, data, str(tmp_path / "set"))
        assert find_file(name, (str(tmp_path), str(tmp_path / "set"))) == data
        assert load_encoder(name, (str(tmp_path / "set"),)).name == name

    def test_another_content_under_its_name_is_refused(self, network: CharCNNRNN, tmp_path: Path) -> None:
        name = name_of(to_file(network))
        other = to_file(CharCNNRNN(width=16, dim=8))
        keep_file(name, other, str(tmp_path))
        with pytest.raises(UserError, match=rf"{name}\.pt was altered or damaged: its content is that of char"):
            load_encoder(name, (str(tmp_path),))

    def test_one_that_is_lost_is_named_with_the_places(self, tmp_path: Path) -> None:
        name = "char-cnn-rnn-0123456789abcdef"
        with pytest.raises(UserError, match=rf"looked for {name}\.pt in {tmp_path}/a and in {tmp_path}/b"):
            load_encoder(name, (f"{tmp_path}/a", f"{tmp_path}/b"))
        with pytest.raises(UserError, match=rf"give its file, {name}\.pt"):
            check_encoder(name)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"no file at all", "is not the file of a trained text encoder"),
            (pickle.dumps(print), "is not the file of a trained text encoder"),
        ],
    )
    def test_foreign_bytes_are_refused_and_not_run(self, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_encoder(str(tmp_path / "x.pt"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "bert"}, "something else"),
            ({"version": 2}, "another version"),
            ({"alphabet": "abc"}, "another version"),
            ({"width": 32}, "is damaged"),
            ({"weights": {}}, "is damaged"),
        ],
    )
    def test_other_contents_are_refused(
        self, change: dict[str, object], message: str, network: CharCNNRNN, tmp_path: Path
    ) -> None:
        (tmp_path / "x.pt").write_bytes(to_file(network))
        content = torch.load(tmp_path / "x.pt", weights_only=True)
        torch.save({**content, **change}, tmp_path / "x.pt")
        with pytest.raises(UserError, match=message):
            load_encoder(str(tmp_path / "x.pt"))


@pytest.mark.parametrize("width", [32, 128])
def test_a_narrow_one_starts_with_texts_as_far_apart(width: int) -> None:
    """With the range of the published width it would start as a constant: texts 15 times closer at a width of 128."""
    texts = torch.from_numpy(spell(["this flower has red petals", "the petals are long and purple", "a white flower"]))

    def spread(width: int) -> float:
        torch.manual_seed(0)
        found = CharCNNRNN(width, 64)(texts).detach()
        return float((found - found.mean(0)).std() / found.std())

    assert spread(width) > 0.7 * spread(512)
