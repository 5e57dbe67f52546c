# SPDX-License-Identifier: Apache-2.0
"""The host's end of the line: requests arrive at the device once and in order.

Go-back-N: every request has a number, and the device takes only the one that is due. Data are
posted without waiting, as many bytes as the window holds; a call waits for its answer, which says
that everything before it has arrived too. What gets lost is sent again, and the device answers a
request that comes again without carrying it out again.
"""

from __future__ import annotations

import secrets
import time
import zlib
from collections import deque
from typing import Protocol

from tte.device.frames import ANSWER, WANTS_ANSWER, Decoder, Frame, encode
from tte.errors import TteError

ACCEPTED, HELLO, WRITE = 0, 1, 2
OK, GAP, NO_CONVERSATION = 0, 1, 2
STATUS_TEXTS = {
    3: "it does not know this command",
    4: "a region, an offset, a length, a target or the learning rate is wrong",
    5: "it has no whole sample, or another step is due",
    6: "it is training on stored samples",
    7: "it has no flash to store that in",
    8: "its storage is full",
    9: "its flash failed",
}
_LONGEST_PAUSE_S = 4.0
_MOST_PAUSES = 500
DEFAULT_LIMIT_S = 60.0


class Stream(Protocol):
    """Bytes to a device and from it."""

    @property
    def bits_per_s(self) -> int | None:
        """The line's speed, 10 bits a byte. None: it loses nothing and is not timed."""

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout_s: float | None) -> bytes:
        """What has come, at least a byte; b"" where nothing comes within the time (None: as long
        as the stream itself allows), or where it is sure that nothing will come."""


class ConversationLost(TteError):
    """The device does not know this conversation: it was restarted, or talks to another host."""

    def __init__(self) -> None:
        super().__init__(
            "the device has lost the conversation",
            why="it was restarted, or another program talks to it",
        )


class CommandRefused(TteError):
    """The device answered a command with another status than OK."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(
            "the device refused a command",
            why=STATUS_TEXTS.get(status, f"its status {status} is unknown to this version of tte"),
        )


class Link:
    """One conversation at a time over a stream. `window_bytes` may be on their way unanswered:
    more than the line carries while an answer travels, so that the line is never idle."""

    def __init__(
        self,
        stream: Stream,
        *,
        window_bytes: int = 16384,
        retry_s: float = 0.25,
        limit_s: float = DEFAULT_LIMIT_S,
    ) -> None:
        self._stream = stream
        self._window_bytes = window_bytes
        self._retry_s = retry_s
        self._limit_s = limit_s
        self._decoder = Decoder()
        self._key = 0
        self._sequence = 0  # of the next request
        self._pending: deque[tuple[int, bytes]] = deque()  # sent, not known to have arrived
        self._pending_bytes = 0
        self._unasked_bytes = 0  # sent since an answer was asked for
        self._gap: int | None = None  # the sequence that was last sent again for a GAP
        self._awaited: tuple[int, int] | None = None  # the command and sequence of an answer
        self._answer: Frame | None = None
        self._refused: int | None = None  # why a WRITE before the command was
        self._pauses = 0
        self._heard = 0.0  # when the last sound frame came
        self.frames_again = 0  # frames that were sent again

    def hello(self, limit_s: float | None = None) -> bytes:
        """Starts a conversation; the device's description of itself. `limit_s`: until an answer
        has to come, if not as long as ever."""
        usual_s, self._limit_s = self._limit_s, limit_s or self._limit_s
        try:
            return self._hello()
        finally:
            self._limit_s = usual_s

    def _hello(self) -> bytes:
        nonce = secrets.token_bytes(4)
        self._key, self._sequence, self._awaited = 0, 0, None
        self._forget_pending()
        self._nonce = nonce
        payload = self.call(HELLO, nonce)
        self._key = key_of(nonce, payload[4:20])
        return payload

    def post(self, payload: bytes) -> None:
        """Sends a WRITE; waits only while the window is full."""
        coded_bytes = len(payload) + 20
        self._unasked_bytes += coded_bytes
        asks = self._is_timed and (
            self._unasked_bytes >= self._window_bytes // 4
            or self._pending_bytes + 2 * coded_bytes > self._window_bytes
        )
        self._send(WRITE, payload, asks)
        while self._is_timed and self._pending_bytes > self._window_bytes - coded_bytes:
            self._wait()

    def call(self, command: int, payload: bytes = b"") -> bytes:
        """Sends a request and waits for its answer's payload, also where a WRITE before it was
        refused: a device drops what follows a request that it has not answered."""
        self._answer = self._refused = None
        self._awaited = (command | ANSWER, self._sequence)
        self._send(command, payload, True)
        self._heard = time.monotonic()
        while self._answer is None:
            self._wait()
        answer = self._answer
        self._awaited = None
        self._forget_pending()
        status = self._refused or answer.detail
        if status != OK:
            raise CommandRefused(status)
        return answer.payload

    # ---- sending ------------------------------------------------------------------------

    @property
    def _is_timed(self) -> bool:
        return self._stream.bits_per_s is not None

    def _send(self, command: int, payload: bytes, asks: bool) -> None:
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        detail = WANTS_ANSWER if asks and command == WRITE else 0
        data = encode(Frame(command, detail, sequence, self._key, payload))
        if asks:
            self._unasked_bytes = 0
        if not self._pending:
            self._heard, self._pauses = time.monotonic(), 0
        self._pending.append((sequence, data))
        self._pending_bytes += len(data)
        self._stream.send(data)

    def _send_again(self, first: int) -> None:
        """From sequence `first` on."""
        again = [data for sequence, data in self._pending if _ahead(sequence, first) >= 0]
        self.frames_again += len(again)
        self._stream.send(b"".join(again))

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._pending_bytes = self._unasked_bytes = self._pauses = 0
        self._gap = None

    # ---- receiving ----------------------------------------------------------------------

    def _wait(self) -> None:
        """Until something has come or it is time to send again."""
        data = self._stream.receive(self._pause_s() if self._is_timed else None)
        frames = self._decoder.feed(data)
        for frame in frames:
            self._take(frame)
        if frames:
            self._heard, self._pauses = time.monotonic(), 0
        elif not data:
            self._retry()

    def _pause_s(self) -> float:
        speed = self._stream.bits_per_s or 1
        on_the_line_s = 10 * self._pending_bytes / speed
        return min(self._retry_s * 1.5**self._pauses, _LONGEST_PAUSE_S) + on_the_line_s

    def _retry(self) -> None:
        """The newest request once more: its answer tells what is missing."""
        if time.monotonic() - self._heard > self._limit_s or self._pauses > _MOST_PAUSES:
            raise TteError(
                "the device does not answer",
                why="no sound frame has come",
                hint="check the port, --baud and that the board runs this project's firmware",
            )
        self._pauses += 1
        self._gap = None
        if self._pending:
            self._send_again(self._pending[-1][0])

    def _take(self, frame: Frame) -> None:
        if not frame.command & ANSWER or not self._pending:
            return
        if frame.command == HELLO | ANSWER:
            if self._awaited == (HELLO | ANSWER, 0) and self._is_hello(frame):
                self._answer = frame
            return
        if self._key == 0:
            return
        if frame.detail == NO_CONVERSATION:
            raise ConversationLost
        if frame.key != self._key:
            return
        if frame.command == ACCEPTED | ANSWER:
            self._take_accepted(frame)
        elif frame.command == WRITE | ANSWER:
            if self._awaited is None:
                raise CommandRefused(frame.detail)
            self._refused = self._refused or frame.detail
        elif (frame.command, frame.sequence) == self._awaited:
            self._answer = frame

    def _is_hello(self, frame: Frame) -> bool:
        return len(frame.payload) >= 20 and frame.key == key_of(self._nonce, frame.payload[4:20])

    def _take_accepted(self, frame: Frame) -> None:
        due = frame.sequence if frame.detail == GAP else (frame.sequence + 1) & 0xFFFF
        if _ahead(due, self._sequence) > 0:
            return
        while self._pending and _ahead(self._pending[0][0], due) < 0:
            if self._awaited is not None and self._awaited[1] == self._pending[0][0]:
                return  # it has arrived, but its answer has not
            self._pending_bytes -= len(self._pending.popleft()[1])
        if frame.detail == GAP and self._gap != due:
            self._gap = due
            self._send_again(due)


def key_of(nonce: bytes, model_id: bytes) -> int:
    """The key that all frames of a conversation carry: of this nonce with this model."""
    return zlib.crc32(model_id, zlib.crc32(nonce)) or 1


def _ahead(sequence: int, other: int) -> int:
    """How far a 16-bit sequence is ahead of another; negative: behind."""
    return (sequence - other + 0x8000 & 0xFFFF) - 0x8000
