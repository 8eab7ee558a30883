"""Specifications of the model and of the encoding, which the driver sends to the workers.

Each process loads the tokenizer for itself, when it is first needed.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.formats import Format, Row, SampleRow, mixed_formats, other_format
from sf_ray.corpus.rows import BadLine, rows_of
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.fast_text_encoder import Chosen, choose_text_encoder
from sf_ray.encoding.templates import Template
from sf_ray.encoding.text_encoder import PlainTextEncoder, backend_of
from sf_ray.engine.model_files import Model, load_tokenizer, resolve_model, tokenizer_kind
from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say
from sf_ray.storage.location import whole_path
from sf_ray.text.printable import printable

# How much of a sampled text the tokenizers are compared on: a book would take seconds.
_SAMPLE_CHARACTERS = 5000


@dataclass(frozen=True)
class ModelSpec:
    """A model that every node finds for itself.

    Attributes:
        name: Hub name, path or URI of the model.
        fingerprint: Hash of the model's files, by which every node checks that it has the same.
        storage_options: fsspec options, where `name` is a URI.
        trust_remote_code: Whether Python code from the model's directory may run.
    """

    name: str
    fingerprint: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    trust_remote_code: bool = False

    def __reduce__(self) -> tuple[type["ModelSpec"], tuple[Any, ...]]:
        """Pickles a relative path as an absolute one: other processes run in other directories."""
        name = whole_path(self.name) if Path(self.name).exists() else self.name
        rest = (self.fingerprint, self.storage_options, self.trust_remote_code)
        return ModelSpec, (name, *rest)

    def resolve(self) -> Model:
        """Finds the model on this node, and downloads it where necessary.

        Raises:
            SfRayError: The model is not there, or its files differ from those on the driver.
        """
        model = resolve_model(self.name, self.storage_options)
        if model.fingerprint != self.fingerprint:
            raise SfRayError(
                f"model {self.name} on node {ray.util.get_node_ip_address()} has other files "
                f"({model.fingerprint}) than on the driver ({self.fingerprint}); put the same "
                "model on every node, or name a URI that all of them fetch"
            )
        return model


@dataclass(frozen=True)
class EncodingSpec:
    """Everything that decides how rows become token ids.

    Attributes:
        format: Format of the corpus.
        model: The model, whose tokenizer encodes.
        max_length: Window in tokens.
        alignment: "reference" or "aligned", see `Encoder`.
        template: How messages become one text.
        turns: "all" scores every assistant turn, "last" the last one.
        tokenizer: Class of the tokenizer, if known; `load_tokenizer` is faster with it.
        sample: Some rows of the corpus, on which the driver tries fastokens; workers have none.
        fast: Whether fastokens passed on the driver, which says so; None on the driver itself.
            Each worker tries it again. No part of the scoring identity, as ids are the same.
        newly_read: What the rows hold that older versions read otherwise; part of the scoring
            identity.
    """

    format: Format
    model: ModelSpec
    max_length: int
    alignment: str
    template: Template = Template()  # noqa: RUF009 - frozen
    turns: str = "all"
    tokenizer: str | None = None
    sample: tuple[Row, ...] = field(default=(), repr=False)
    fast: bool | None = None
    newly_read: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of the corpus to read."""
        return self.format.top_columns

    def for_workers(self) -> "EncodingSpec":
        """A copy without the loaded tokenizer and the sample, but with what is known of both.

        The copy is small, and workers that know the class load it in less time and memory.
        """
        kind = tokenizer_kind(self._tokenizer)
        return replace(self, tokenizer=kind, sample=(), fast=self._texts.is_fast)

    def check(self) -> None:
        """Makes the encoder in this process, so that errors show before any actor starts.

        The driver also says what became of fastokens.

        Raises:
            SfRayError: The tokenizer or the template does not work.
        """
        _ = self._encoder
        if self.fast is None and self._texts.why:
            encodes = (
                "encoding with" if self._texts.is_fast else "note: encoding without fastokens:"
            )
            say(f"{encodes} {self._texts.why}")

    def encode(self, rows: pa.Table, shard: str, start: int) -> pa.Table:
        """Encodes rows of a shard.

        Args:
            rows: The rows, as `read_units` reads them.
            shard: Path of the shard, relative to the corpus.
            start: Number in the shard of the first of the rows.

        Returns:
            As many encoded rows, in the form of `encoded_table`.

        Raises:
            SfRayError: A row has another format than the corpus.
        """
        examples = [
            self._render(row, shard, number) for number, row in enumerate(rows_of(rows), start)
        ]
        encoded = self._encoder.encode(examples)
        failed = [i for i, s in enumerate(encoded.statuses) if s is Status.TEMPLATE_ERROR]
        if failed:  # only here is the line of the template known at which it failed
            say(
                f"note: the template fails on {len(failed)} rows of {printable(shard)}, "
                "first on row "
                f"{start + failed[0]} ({encoded.reasons[failed[0]]}); they get the status "
                f"{Status.TEMPLATE_ERROR.value}"
            )
        return encoded_table(encoded)

    def statuses(self, sample: Sequence[SampleRow]) -> list[Status]:
        """The status of each row of a sample: whether it can be scored, or why not.

        Raises:
            SfRayError: A row has another format than the corpus.
        """
        examples = [self._render(place.row, place.shard, place.number) for place in sample]
        return list(self._encoder.encode(examples).statuses) if examples else []

    def _render(self, row: Row | BadLine, shard: str, number: int) -> Example | Problem:
        if isinstance(row, BadLine):
            return Problem(Status.BAD_ROW, row.reason)
        example = self.format.render(row)
        if isinstance(example, Problem) and example.status is Status.BAD_ROW:
            other = contained(other_format, self.format, row)
            if isinstance(other, Format):
                where = SampleRow(shard, number, row)
                raise mixed_formats(where, other, f"others are {self.format}")
        return example

    @functools.cached_property
    def _encoder(self) -> Encoder:
        """The encoder, made once in each process."""
        return Encoder(
            self._tokenizer,
            self.max_length,
            self.alignment,
            template=self.template,
            turns=self.turns,
            texts=self._texts.encoder,
        )

    @functools.cached_property
    def _texts(self) -> Chosen:
        """How this process encodes texts for the plain template."""
        backend = backend_of(self._tokenizer)
        if self.fast is False or not self.template.is_plain:
            return Chosen(PlainTextEncoder(backend))
        examples = map(self.format.render, self.sample)
        turns = [(e, e.turns[-1]) for e in examples if isinstance(e, Example)]
        texts = [text for e, turn in turns for text in (e.before(turn), e.text)]
        chosen = choose_text_encoder(backend, [text[:_SAMPLE_CHARACTERS] for text in texts])
        if self.fast and not chosen.is_fast:
            why = chosen.why or "fastokens is not installed"
            say(f"note: this process encodes with tokenizers, unlike the driver: {why}")
        return chosen

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(
            self.model.resolve(), self.model.trust_remote_code, kind=self.tokenizer
        )
