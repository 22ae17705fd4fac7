"""Encoders in folders of Hugging Face: the real architectures, small, with random weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoders import small_clip
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.agreement import compare
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import load_recipe
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.scores.subject import Subject, open_subject
from stackgan_dist.text import SentenceError, check_encoder, encoder_name, folders, load_encoder, load_given
from stackgan_dist.text.folders import folder_name, is_folder_name, same_encoder

SENTENCES = ["a red bird", "ein roter Vogel auf einem Ast", "红色的鸟", "a bird"]
SIZE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ["a", "red", "bird", "ein", "roter", "vogel", "auf", "einem", "ast", "红", "色", "的", "鸟", ",", "."]


def _word_pieces(folder: Path) -> int:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{letter}" for letter in "abcdefgh")]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 32})
    )
    return len(vocabulary)


def _bert(folder: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=_word_pieces(folder), max_position_embeddings=32, **SIZE)
    BertModel(config, add_pooling_layer=False).eval().save_pretrained(folder)
    return folder


def _sentence_transformers(folder: Path, mode: str = "cls_token", *more: dict[str, str]) -> Path:
    """A BERT with what sentence-transformers writes beside it."""
    _bert(folder)
    kinds = [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "x.Pooling", "path": "1_Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps([*kinds, *more]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, f"pooling_mode_{mode}": True})
    )
    return folder


def _unit(vectors: torch.Tensor) -> np.ndarray[Any, Any]:
    return (torch.nn.functional.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5).numpy()


def _states(folder: Path, sentence: str) -> torch.Tensor:
    tokens = AutoTokenizer.from_pretrained(str(folder))(sentence, return_tensors="pt")
    with torch.no_grad():
        states: torch.Tensor = AutoModel.from_pretrained(str(folder)).eval()(**tokens).last_hidden_state[0]
    return states


def test_a_bert_is_pooled_by_the_mean_and_each_sentence_is_alone(tmp_path: Path) -> None:
    folder = _bert(tmp_path / "my model")
    encoder = load_encoder(f"hf:{folder}")
    assert (encoder.dim, is_folder_name(encoder.name)) == (16, True)
    assert encoder.name.startswith("hf-my-model-")
    found = encoder.encode(SENTENCES * 20)  # more than a batch
    assert (found.shape, found.dtype) == ((80, 16), np.float32)
    np.testing.assert_allclose(np.square(found).mean(1), 1, rtol=1e-5)
    for row, sentence in zip(found, SENTENCES, strict=False):
        np.testing.assert_allclose(row, _unit(_states(folder, sentence).mean(0)), atol=1e-5)
    assert len({row.tobytes() for row in found[:4]}) == 4
    with pytest.raises(SentenceError, match="empty sentence"):
        encoder.encode(["a bird", " "])


@pytest.mark.parametrize(("mode", "pooled"), [("cls_token", 0), ("lasttoken", -1), ("max_tokens", None)])
def test_pooling_is_what_the_folder_says(tmp_path: Path, mode: str, pooled: int | None) -> None:
    folder = _sentence_transformers(tmp_path / "st", mode)
    found = load_encoder(f"hf:{folder}").encode(SENTENCES)
    states = _states(folder, SENTENCES[0])
    np.testing.assert_allclose(found[0], _unit(states.max(0).values if pooled is None else states[pooled]), atol=1e-5)


def test_a_linear_layer_behind_the_pool_and_words_before_every_sentence(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = _sentence_transformers(
        tmp_path / "st", "mean_tokens", {"type": "x.Dense", "path": "2_Dense"}, {"type": "x.Normalize", "path": "3"}
    )
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text(
        json.dumps(
            {
                "in_features": 16,
                "out_features": 6,
                "bias": False,
                "activation_function": "torch.nn.modules.activation.Tanh",
            }
        )
    )
    weight = torch.randn(6, 16)
    save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")
    prompts = {"prompts": {"query": "a red "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder = load_encoder(f"hf:{folder}")
    assert encoder.dim == 6
    expected = _unit(torch.tanh(_states(folder, "a red bird").mean(0) @ weight.T))
    np.testing.assert_allclose(encoder.encode(["bird"])[0], expected, atol=1e-5)


def test_a_multilingual_one_like_xlm_roberta(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path / "xlmr")  # of no length
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(words), max_position_embeddings=12, pad_token_id=1, **SIZE)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "xlmr")
    encoder = load_encoder(f"hf:{tmp_path / 'xlmr'}")
    found = encoder.encode([*SENTENCES, " ".join(["red"] * 50)])  # cut off at 12 - 2 places
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[2], _unit(_states(tmp_path / "xlmr", SENTENCES[2]).mean(0)), atol=1e-5)


def test_clip_gives_its_projected_embedding(tmp_path: Path) -> None:
    folder = small_clip(tmp_path / "clip")
    encoder = load_encoder(f"hf:{folder}")
    tokens = AutoTokenizer.from_pretrained(str(folder))(SENTENCES[0], return_tensors="pt")
    model = CLIPModel.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        states = model.text_model(**tokens).pooler_output
        expected = _unit(model.text_projection(states)[0])
    assert encoder.dim == 24
    np.testing.assert_allclose(encoder.encode(SENTENCES)[0], expected, atol=1e-5)


def test_siglip_gives_its_projected_embedding(tmp_path: Path) -> None:
    folder = tmp_path / "siglip"
    vocabulary = _word_pieces(folder)
    torch.manual_seed(0)
    text = {**SIZE, "vocab_size": vocabulary, "max_position_embeddings": 8, "projection_size": 10, "pad_token_id": 0}
    SiglipModel(
        SiglipConfig(text_config=text, vision_config={**SIZE, "image_size": 16, "patch_size": 8})
    ).save_pretrained(folder)
    encoder = load_encoder(f"hf:{folder}")
    tokens = AutoTokenizer.from_pretrained(str(folder))(
        SENTENCES[0], padding="max_length", max_length=8, truncation=True, return_tensors="pt"
    )
    model = SiglipModel.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        expected = _unit(model.text_model(input_ids=tokens["input_ids"]).pooler_output[0])
    assert encoder.dim == 10
    np.testing.assert_allclose(encoder.encode(SENTENCES)[0], expected, atol=1e-5)


def test_weights_that_are_no_safetensors_are_read_as_data_alone(tmp_path: Path) -> None:
    folder = _bert(tmp_path / "old")
    expected = load_encoder(f"hf:{folder}").encode(SENTENCES)
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert np.array_equal(load_encoder(f"hf:{folder}").encode(SENTENCES), expected)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"embeddings.word_embeddings.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read as a text encoder"):
        load_encoder(f"hf:{folder}")
    assert not (tmp_path / "executed").exists()


def test_a_set_finds_its_encoder_again_or_says_which_folder_it_needs(tmp_path: Path) -> None:
    folder = _bert(tmp_path / "model")
    recipe = dataclasses.replace(load_recipe("painted"), sizes=(76,), splits=("train",), text_encoder=f"hf:{folder}")
    pack(recipe, root=None, out=str(tmp_path / "set"), workers=1, limit=4)
    index = load_index(tmp_path / "set" / "train" / "76")
    name = encoder_name(f"hf:{folder}")
    assert (index.text_encoder, index.text_dim) == (name, 16)
    beside = [tmp_path / "set"]
    expected = load_encoder(f"hf:{folder}").encode(SENTENCES)
    assert np.array_equal(load_encoder(name, beside).encode(SENTENCES), expected)
    assert np.array_equal(load_encoder(str(tmp_path / "set" / f"{name}.json")).encode(SENTENCES), expected)

    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{name} is needed .*{folder} is not there; give its folder with hf:FOLDER"):
        load_encoder(name, beside)
    (tmp_path / "set" / name).symlink_to(moved)
    assert np.array_equal(load_encoder(name, beside).encode(SENTENCES), expected)
    (moved / "vocab.txt").write_text((moved / "vocab.txt").read_text() + "more\n")
    with pytest.raises(UserError, match="which is another one"):
        load_encoder(name, beside)
    with pytest.raises(UserError, match=rf"looked for it, and for {name}.json, in {tmp_path}"):
        load_encoder(name, [tmp_path])


def test_the_files_of_a_folder_are_read_for_its_name_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be gigabytes, and every packing process loads the encoder."""
    folder = _bert(tmp_path / "model")
    read = []

    def counted(path: Path) -> str:
        read.append(path)
        return folder_name(path)

    monkeypatch.setattr(folders, "folder_name", counted)
    name = encoder_name(f"hf:{folder}")
    assert read == [folder]
    assert load_encoder(f"hf:{folder}").name == name
    assert read == [folder, folder]


def test_a_renamed_folder_is_the_same_encoder(
    packed: Path, three_runs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Two sets packed with one folder under two names: what was trained on one takes captions of the other."""
    named, renamed, other = f"hf-base-{'0' * 16}", f"hf-mine-{'0' * 16}", f"hf-base-{'1' * 16}"
    assert same_encoder(named, renamed)
    assert not same_encoder(named, other)
    assert not same_encoder("ngrams", "minilm")
    trained = load_trained(three_runs[1], print)
    trained = dataclasses.replace(trained, data=dataclasses.replace(trained.data, text_encoder=named))
    for name in (renamed, other):
        shutil.copytree(packed, tmp_path / name)
        for file in (tmp_path / name).glob("*/*/index.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "text_encoder": name}))
    assert len(open_subject(Subject("", data=str(tmp_path / renamed)), trained).captions.captions()) == 38
    with pytest.raises(UserError, match=f"has texts of {other} .*, the run was trained on {named}"):
        open_subject(Subject("", data=str(tmp_path / other)), trained)
    train, test = (load_index(packed / split / "76") for split in ("train", "test"))
    train = dataclasses.replace(train, text_encoder=named)
    faults = [
        compare("x", [train, dataclasses.replace(test, text_encoder=name)], {}).faults for name in (renamed, other)
    ]
    assert [any("text encoder" in fault for fault in found) for found in faults] == [False, True]


def test_a_folder_beside_which_one_works_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _bert(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert encoder_name("hf:model") == encoder_name(f"hf:{folder}") == load_encoder("hf:model").name


def test_what_is_no_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is no folder; give the local folder of a model"):
        check_encoder(f"hf:{tmp_path / 'none'}")
    folder = _bert(tmp_path / "model")
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        load_encoder(f"hf:{folder}")
    whole = _bert(tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match="lacks 16 weights of a text encoder, encoder"):
        load_encoder(f"hf:{whole}")
    (whole / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "code.Mine"}}))
    (whole / "code.py").write_text("raise SystemExit('executed')")
    with pytest.raises(UserError, match="cannot be read as a text encoder"):
        load_encoder(f"hf:{whole}")
    (whole / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has neither \*.safetensors nor pytorch_model.bin"):
        check_encoder(f"hf:{whole}")
    odd = _sentence_transformers(tmp_path / "odd", "weightedmean_tokens")
    with pytest.raises(UserError, match="pools by weightedmean_tokens; known are mean_tokens"):
        load_encoder(f"hf:{odd}")


def test_an_encoder_that_is_given_anew_has_to_be_the_very_one(tmp_path: Path) -> None:
    folder = _bert(tmp_path / "model")
    name = encoder_name(f"hf:{folder}")
    renamed = folder.rename(tmp_path / "renamed")
    assert load_given(f"hf:{renamed}", name).dim == 16
    with pytest.raises(UserError, match=f"--encoder ngrams is ngrams, but the run was trained on texts of {name}"):
        load_given("ngrams", name)
    with pytest.raises(UserError, match="but the run was trained on texts of ngrams"):
        load_given(f"hf:{renamed}", "ngrams")
