"""All tables of a run as one page of markdown."""

from . import machine, tables
from .scaling import scaling_table
from .shapes import Shape
from .verdict import verdict_table

NAMES = {
    "forward": "Forward",
    "gradient": "Gradient",
    "vmap_forward": "Forward, the batch made by `vmap`",
    "vmap_gradient": "Gradient, the batch made by `vmap`",
}


def report(results: dict) -> str:
    sections = {"Machine": machine.in_words(results["machine"]) + "\n"}
    if results["shapes"]:
        sections |= shape_sections(results)
    if results["scaling"]:
        sections["Growth of the gradient"] = scaling_table(results["scaling"])
    return "\n".join(f"### {title}\n\n{text}" for title, text in sections.items())


def shape_sections(results: dict) -> dict[str, str]:
    measures = tables.measures_of(results)
    shapes = {name: Shape(*entry["size"]) for name, entry in results["shapes"].items()}
    sizes = [[name, *map(str, shape)] for name, shape in shapes.items()]
    sections = {"Shapes": tables.table(["", *Shape._fields], sizes)}
    for measure in measures:
        title = f"{NAMES[measure]}: milliseconds, minimum [median]"
        sections[title] = tables.time_table(results, measure)
    for measure in measures:
        title = f"{NAMES[measure]}: jlstm's time over the peer's, by minima"
        sections[title] = tables.ratio_table(results, measure)
    sections |= {
        "Temporary memory of the gradient, MB": tables.scaled_table(results, "memory", 1e-6),
        "Temporary memory of the gradient: jlstm's over the peer's": tables.ratio_table(
            results, "memory"
        ),
        "Compile time of the gradient, milliseconds": tables.scaled_table(results, "compile", 1e3),
        "The bar": verdict_table(results),
        "Refused": tables.refusals(results),
    }
    return sections
