"""Gemmini as DOSA describes it to Timeloop (MICRO 2023, BSD-2-Clause): the machine of two of the golden data sets."""

from ._hierarchy import Hierarchy, Memory, Port, hierarchy

# Accelergy's 40 nm energies in closed form: fitted on 2,077 of DOSA's Timeloop results, residual at most 8e-6.
_MAC_J, _BYTE_J, _BYTE_J_PER_KIB, _DRAM_J_PER_BYTE = 0.5608e-12, 0.487437e-12, 0.0251256e-12, 100e-12
_BLOCK_WORDS = 64  # of DRAM
_SUM_BYTES = 4


def gemmini(pes: int, accumulator_entries: float, scratchpad_entries: float) -> Hierarchy:
    """`pes x pes` multipliers: weights in a register each, one accumulator a column, a scratchpad of weights and inputs, DRAM.

    **Arguments:** `accumulator_entries` of 32 bits a column, `scratchpad_entries` of 8 bits. Array dimensions: rows, columns.
    One bandwidth a memory for all it moves: 2 words a cycle of an accumulator, 2 a row of the scratchpad, 8 of DRAM.
    """

    def byte_j(kib: float) -> float:
        return _BYTE_J + _BYTE_J_PER_KIB * kib

    def memory(name, entries, word_bits, words_per_cycle, access_words, access_j, serves, operands):
        port = Port(words_per_cycle * word_bits, access_words * word_bits, access_words * word_bits)
        ways = {"W": ("read_to_lower", "write_from_higher"), "I": ("read_to_lower", "write_from_higher"),
                "O": ("read_to_lower", "write_from_lower", "read_to_higher", "write_from_higher")}  # fmt: skip
        route = {(t, way): "port" for t in operands for way in ways[t]}
        return Memory(name, entries * word_bits, access_j, access_j, serves, {"port": port}, route)

    accumulator_j = _SUM_BYTES * byte_j(accumulator_entries * _SUM_BYTES / 1024)
    row_j = pes * byte_j(scratchpad_entries / 1024)
    unlimited, everywhere = 1e30, ("rows", "columns")
    memories = [
        memory("register", 1, 8, unlimited, 1, byte_j(1 / 1024), (), "W"),
        memory("accumulator", accumulator_entries, 32, 2, 1, accumulator_j, ("rows",), "O"),
        memory("scratchpad", scratchpad_entries, 8, 2 * pes, pes, row_j, everywhere, "WI"),
        memory("dram", 1e15, 8, 8, _BLOCK_WORDS, _BLOCK_WORDS * _DRAM_J_PER_BYTE, everywhere, "WIO"),
    ]
    chains = {
        "W": ["register", "scratchpad", "dram"],
        "I": ["scratchpad", "dram"],
        "O": ["accumulator", "dram"],
    }
    return hierarchy({"rows": pes, "columns": pes}, _MAC_J, memories, chains)
