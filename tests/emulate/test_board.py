# SPDX-License-Identifier: Apache-2.0
"""Boards are read, and limits become MPU regions that cover them without a gap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tte.board import (
    enforced_bytes,
    enforced_limits,
    list_boards,
    load_board,
    mpu_regions,
    read_board,
)
from tte.codegen.project import project_files
from tte.errors import TteError

SRAM = 0x2000_0000


@pytest.mark.parametrize("name", list_boards())
def test_every_board_loads(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    assert board.sram.size_bytes <= board.sram.largest_bytes
    assert board.stack_reserve_bytes % 8 == 0
    assert board.sources and board.emulators


def test_unknown_board_lists_the_boards() -> None:
    with pytest.raises(TteError) as caught:
        load_board("nothing")
    assert "mps2-an386" in caught.value.hint


def test_a_board_file_without_a_key_names_it(tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text('name = "x"\n')
    with pytest.raises(TteError) as caught:
        read_board(tmp_path / "board.toml")
    assert "memory" in caught.value.why


@pytest.mark.parametrize(
    "limit", [32, 100, 255, 256, 1000, 20480, 65535, 131072, 196608, 200000, 262144, 262145, 333333]
)
@pytest.mark.parametrize("origin", [0, SRAM, SRAM + 0x1_0000, 0x0800_0000])
@pytest.mark.parametrize("at_most", [1, 2, 3, 4])
def test_regions_cover_a_limit_from_its_origin(origin: int, limit: int, at_most: int) -> None:
    regions = mpu_regions(origin, limit, at_most)
    assert 1 <= len(regions) <= at_most
    end = origin
    for region in regions:
        assert region.size_bytes >= 32 and region.size_bytes.bit_count() == 1
        assert region.base % region.size_bytes == 0
        assert region.base == end
        assert region.size_bytes >= 256 or region.disabled_eighths == 0
        # The eighths that are on are the first ones, so what is covered has no hole.
        on = ~region.disabled_eighths & 0xFF
        assert on & (on + 1) == 0 and on
        end += region.covered_bytes
    assert end - origin == enforced_bytes(origin, limit, at_most) <= limit
    if len(regions) < at_most:
        assert limit - (end - origin) < 32


def test_a_limit_is_divided_between_fast_memory_and_sram() -> None:
    for name in list_boards():
        board = load_board(name)
        stack = board.stack_reserve_bytes
        for limit in (board.sram_bytes, board.sram_bytes // 2, 65536, 50001):
            for trained in (0, 3000, 40000):
                found = enforced_limits(board, limit, board.flash.size_bytes, stack, trained)
                used = found.fast_bytes + found.sram_bytes
                assert 0.85 * limit < used <= limit
                assert found.sram_bytes <= board.sram.largest_bytes
                if board.fast is None:
                    assert found.fast_bytes == 0 and not found.data_is_fast
                    continue
                assert stack <= found.fast_bytes <= board.fast.size_bytes
                assert found.data_is_fast == (stack + trained + 512 <= board.fast.size_bytes)
                assert found.fast_bytes >= stack + trained * found.data_is_fast
        whole = enforced_limits(board, board.sram_bytes, board.flash.size_bytes, stack, 0)
        assert whole.fast_bytes + whole.sram_bytes == board.sram_bytes
        assert whole.flash_bytes == board.flash.size_bytes


def test_a_program_may_take_the_flash_of_the_storage() -> None:
    board = load_board("stm32f746g-disco")
    assert board.storage_beside(board.flash.size_bytes) is board.storage is not None
    assert board.storage_beside(board.flash.size_bytes + 1) is None
    assert board.storage_beside(board.flash.largest_bytes) is None
    text = project_files(board, board.sram_bytes, board.flash.largest_bytes, 3072, [])
    assert "NULL, 0, 0, 4, 0" in text["board/board.h"]


def test_usual_limits_are_exact() -> None:
    for limit in (16384, 65536, 131072, 192 * 1024, 200000, 200 * 1024, 262144, 320 * 1024):
        assert enforced_bytes(SRAM, limit, 4) == limit
    assert len(mpu_regions(SRAM, 262144, 4)) == 1
    assert len(mpu_regions(SRAM, 192 * 1024, 4)) == 1
