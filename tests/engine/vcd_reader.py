"""A small reader of value change dumps, from IEEE 1364's grammar: what every signal holds at each rising edge."""

import re
from dataclasses import dataclass


@dataclass
class Waves:
    """edges: (time, {full name: value}) at each rising edge of the clock; value is an int, unsigned, or None for x."""

    timescale: str
    widths: dict
    edges: list
    falling_times: list

    def table(self, *names, bits=None):
        """Return, for each edge, the values of `names`; as two's complement of `bits` if given."""
        return [[signed(values[name], bits) for name in names] for _, values in self.edges]


def signed(value, bits):
    """Return the two's-complement meaning of `bits` bits."""
    return value - (1 << bits) if bits and value is not None and value >> (bits - 1) else value


def read_vcd(path):
    head, _, body = path.read_text().partition("$enddefinitions $end")
    scopes, names, widths, timescale = [], {}, {}, ""
    for keyword, content in re.findall(r"\$(\w+)\s+(.*?)\s*\$end", head, re.DOTALL):
        if keyword == "scope":
            scopes.append(content.split()[1])
        elif keyword == "upscope":
            scopes.pop()
        elif keyword == "timescale":
            timescale = content
        elif keyword == "var":
            _, width, code, name = content.split()[:4]
            assert code not in names, "each signal has an identifier of its own"
            names[code] = ".".join([*scopes, name])
            widths[names[code]] = int(width)
    assert scopes == []
    values = dict.fromkeys(names.values(), "never set")
    edges, falling, time, before = [], [], None, None

    def close():
        clock = values["accelsim.clk"]
        if time is not None and clock != before:
            (edges if clock else falling).append((time, dict(values)))

    for word in re.sub(r"\$(dumpvars|end)\b", "", body).split("\n"):
        if not word:
            continue
        if word[0] == "#":
            close()
            before = values["accelsim.clk"]
            assert time is None or int(word[1:]) > time
            time = int(word[1:])
        else:
            digits, code = word[1:].split() if word[0] == "b" else (word[0], word[1:])
            assert len(digits) <= widths[names[code]]
            values[names[code]] = None if digits == "x" else int(digits, 2)
    close()
    assert "never set" not in values.values()
    return Waves(timescale, widths, edges, [time for time, _ in falling])
