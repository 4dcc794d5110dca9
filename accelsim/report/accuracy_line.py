"""What a run says about accuracy, in three lines: classes, outputs, the worst layers."""

from __future__ import annotations

from accelsim.report.values import RunReport

WORST = 3


def accuracy_lines(report: RunReport) -> str:
    """Return the accuracy of the float network and of the simulated hardware, and where precision is lost."""
    lines = []
    accuracy = report.accuracy
    if accuracy is not None:
        parts = [f"{accuracy.images} inputs on {report.config_name}"]
        if accuracy.float_accuracy is not None and accuracy.simulated_accuracy is not None:
            parts.append(f"float {accuracy.float_accuracy:.1%}, simulated {accuracy.simulated_accuracy:.1%} correct")
        if accuracy.agreement is not None:
            parts.append(f"the same class for {accuracy.agreement:.1%}")
        lines.append("accuracy: " + "; ".join(parts))
    known = [(layer.accuracy.sqnr_db, layer.name) for layer in report.layers if layer.accuracy is not None]
    if known:
        worst = ", ".join(f"{name} {sqnr_db:.1f}" for sqnr_db, name in sorted(known)[:WORST])
        lines.append(f"SQNR: {known[-1][0]:.1f} dB at the output; lowest: {worst} dB")
    return "\n".join(lines)
