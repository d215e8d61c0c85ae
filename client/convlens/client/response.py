"""Responses with arrays: put together from their parts, verified, and resumed where a connection broke."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from convlens.client.errors import DataCorrupted
from convlens.client.images import SentImage
from convlens.client.result import Result
from convlens.client.result_data import Array
from convlens.v1 import result_pb2, tensors


class ResponseReader:
    """Assemble a result from a header and chunks, in arrays that are allocated once the header is known."""

    def __init__(
        self,
        images: Sequence[SentImage] = (),
        request_id: str = "",
        job_id: str = "",
        reserve: Callable[[int], object] | None = None,
    ) -> None:
        """`reserve` is called with the bytes of the arrays before they are allocated; what it raises is passed on."""
        self.job_id = job_id
        """Empty until the server has said it."""
        self.offset = 0
        """Bytes received so far: where an interrupted read continues."""
        self._images = images
        self._request_id = request_id
        self._reserve = reserve
        self._header: result_pb2.ResultHeader | None = None
        self._arrays: list[Array] = []
        self._buffers: list[memoryview] = []

    @property
    def has_header(self) -> bool:
        """True once the header has arrived: the job is done, and its result can be read by offset."""
        return self._header is not None

    def feed(self, part: Any) -> None:
        """Take one message of a Visualize or ReadJobResult stream. DataCorrupted unless it is the next one."""
        if part is None:  # what grpc.aio makes of a message that cannot be parsed
            raise self._corrupted("a message of the response cannot be parsed")
        match part.WhichOneof("part"):
            case "job":
                self.job_id = part.job.id
            case "header":
                self.add_header(part.header)
            case "chunk":
                self.add_chunk(part.chunk.offset, part.chunk.data)

    def add_header(self, header: result_pb2.ResultHeader) -> None:
        """Take the header, with the data it brings; one repeated by a resumed read must announce the same arrays."""
        if self._header is not None:
            if list(header.tensors) != list(self._header.tensors):
                raise self._corrupted("the resumed result announces other arrays")
            return
        self.job_id = header.job_id
        data = header.data
        if data:  # a copy, since a message keeps the memory of a field that was cleared
            header.ClearField("data")
            without_data = result_pb2.ResultHeader()
            without_data.CopyFrom(header)
            header = without_data
        self._header = header
        if self._reserve:
            self._reserve(header.total_bytes)
        try:
            self._arrays = [tensors.allocate(spec) for spec in header.tensors]
        except tensors.TensorError as error:
            raise self._corrupted(str(error)) from error
        self._buffers = [tensors.buffer_of(array) for array in self._arrays]
        self._fill(data)

    def add_chunk(self, offset: int, data: bytes) -> None:
        """Take the next chunk; chunks arrive in order and without gaps."""
        if offset != self.offset:
            raise self._corrupted(f"a chunk begins at {offset}, expected was {self.offset}")
        self._fill(data)

    def _fill(self, received: bytes) -> None:
        """Copy the next bytes into the arrays."""
        data = memoryview(received)
        start = 0
        for buffer in self._buffers:
            inside = self.offset - start
            if data and 0 <= inside < len(buffer):
                piece = data[: len(buffer) - inside]
                buffer[inside : inside + len(piece)] = piece
                self.offset += len(piece)
                data = data[len(piece) :]
            start += len(buffer)
        if data:
            raise self._corrupted("more bytes arrived than were announced")

    def result(self) -> Result:
        """Return the result, verified by length and CRC-32. DataCorrupted if it is not whole."""
        if self._header is None or self.offset != sum(map(len, self._buffers)):
            raise self._corrupted("the result ended early")
        for array, spec in zip(self._arrays, self._header.tensors, strict=True):
            try:
                tensors.verify(array, spec)
            except tensors.TensorError as error:
                raise self._corrupted(str(error)) from error
        names = [spec.name for spec in self._header.tensors]
        arrays = dict(zip(names, self._arrays, strict=True))
        return Result(self._header, arrays, self._images, self._request_id)

    def _corrupted(self, message: str) -> DataCorrupted:
        return DataCorrupted(message, job_id=self.job_id, request_id=self._request_id)
