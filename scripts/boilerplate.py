"""Counts what the operators of the catalogue cost to write, beside hand-wired graphs.

A line is a line that is not blank; comments and docstrings count. The figure for hand-wired graphs is 80 lines for a
workflow; one workflow stands in `benchmarks/` written by hand, so that the figure can be judged. Fails when the
workflows take more than 40 % of 80 lines each.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CATALOG = ROOT / "operators" / "catalog"
OPERATORS = ("company_intel", "revenue_ops", "content_engine", "customer_success", "market_intel")
#: Python beside the operators' own modules that only exists for them.
BESIDE = ("leads.py", "deals.py", "funnels.py", "keys.py", "messages.py", "prompts/__init__.py", "__init__.py")
BASELINE = ROOT / "benchmarks" / "baseline_lead_qualification.py"
HAND_WIRED = 80
LEAST_SAVING = 60.0

#: What lead qualification uses beside its own class: types and functions, and the state fields it reads or writes.
LEAD_USES = {"revenue_ops.py": {"Score"}, "leads.py": {"key", "contact", "intel", "updated", "unscored", "handover"}}
LEAD_FIELDS = {
    "contact_id", "company_name", "segment", "lead_data", "enriched_data", "score", "lead_score", "route", "crm_updated"
}  # fmt: skip


@dataclass(frozen=True)
class Workflow:
    """A workflow's class, from its first decorator to its last line, and the prompts that it asks with."""

    operator: str
    id: str
    code: int
    prompts: frozenset[Path]


def main() -> int:
    workflows = [workflow for operator in OPERATORS for workflow in found(operator)]
    show_workflows(workflows)
    show_lead_qualification(next(item for item in workflows if item.id == "lead_qualification"))
    code = sum(item.code for item in workflows)
    allowed = HAND_WIRED * len(workflows)
    if saving(code, allowed) < LEAST_SAVING:
        print(f"boilerplate: {code} lines are less than {LEAST_SAVING:g} % below {allowed}; make workflows shorter")
        return 1
    return 0


def found(operator: str) -> list[Workflow]:
    source = (CATALOG / f"{operator}.py").read_text("utf-8")
    classes = [item for item in ast.parse(source).body if isinstance(item, ast.ClassDef)]
    nested = [item for cls in classes for item in cls.body if isinstance(item, ast.ClassDef)]
    return [Workflow(operator, named(item), size(source, item), asked(operator, item)) for item in nested]


def named(cls: ast.ClassDef) -> str:
    [name] = [
        option.value.value
        for decorator in cls.decorator_list
        if isinstance(decorator, ast.Call)
        for option in decorator.keywords
        if option.arg == "id" and isinstance(option.value, ast.Constant)
    ]
    return str(name)


def asked(operator: str, tree: ast.AST) -> frozenset[Path]:
    calls = [item for item in ast.walk(tree) if isinstance(item, ast.Call) and isinstance(item.func, ast.Name)]
    names = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "ask"]
    return frozenset(
        CATALOG / "prompts" / operator / f"{name.value!s}.md" for name in names if isinstance(name, ast.Constant)
    )


def size(source: str, item: ast.ClassDef | ast.FunctionDef) -> int:
    first = min([item.lineno, *(decorator.lineno for decorator in item.decorator_list)])
    return filled(source.splitlines()[first - 1 : item.end_lineno])


def filled(lines: Iterable[str]) -> int:
    return sum(1 for line in lines if line.strip())


def lines(paths: Iterable[Path]) -> int:
    return sum(filled(path.read_text("utf-8").splitlines()) for path in paths)


def saving(ours: int, theirs: int) -> float:
    return round(100 * (1 - ours / theirs), 1)


def show_workflows(workflows: list[Workflow]) -> None:
    row = "{:<18} {:<22} {:>5} {:>8} {:>6}"
    print(row.format("operator", "workflow", "code", "prompts", "both"))
    for item in workflows:
        words = lines(item.prompts)
        print(row.format(item.operator, item.id, item.code, words, item.code + words))
    code, hand = sum(item.code for item in workflows), HAND_WIRED * len(workflows)
    prompts = lines(frozenset[Path]().union(*(item.prompts for item in workflows)))
    whole = lines([*(CATALOG / f"{name}.py" for name in OPERATORS), *(CATALOG / name for name in BESIDE)])
    print(f"\n{len(workflows)} workflows, hand-wired at {HAND_WIRED} lines each: {hand} lines")
    print(f"  ours, the workflows:                                {code:>5} lines, {saving(code, hand)} % less")
    print(f"  the same and all prompts (a shared one once):       {code + prompts:>5} lines")
    print(f"  all Python of the operators (fields, types, rules): {whole:>5} lines, {saving(whole, hand)} % less")


def show_lead_qualification(workflow: Workflow) -> None:
    tree = ast.parse(BASELINE.read_text("utf-8"))
    constants = [item for item in tree.body if isinstance(item, ast.Assign) and _is_text(item.value)]
    hand = lines([BASELINE])
    hand_prompts = sum((item.end_lineno or 0) - item.lineno - 1 - _blanks(item) for item in constants)
    used = sum(_used(name, wanted) for name, wanted in LEAD_USES.items()) + _fields(LEAD_FIELDS)
    prompts = lines(workflow.prompts)
    ours = workflow.code + used
    print("\nlead_qualification                                    ours   by hand")
    print(f"  the workflow alone                                 {workflow.code:>5}         -")
    print(
        f"  with the types, fields and functions that it uses  {ours:>5} {hand - hand_prompts:>9}"
        f"   {saving(ours, hand - hand_prompts)} % less"
    )
    print(
        f"  with its prompts too                               {ours + prompts:>5} {hand:>9}"
        f"   {saving(ours + prompts, hand)} % less"
    )
    print("  (by hand without trigger, page, timeline, shared context, events, and effects that happen once)")


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str) and "\n" in value.value


def _blanks(item: ast.Assign) -> int:
    text = item.value.value if isinstance(item.value, ast.Constant) else ""
    return sum(1 for line in str(text).strip().splitlines() if not line.strip())


def _used(module: str, wanted: set[str]) -> int:
    source = (CATALOG / module).read_text("utf-8")
    parts = [item for item in ast.parse(source).body if isinstance(item, (ast.ClassDef, ast.FunctionDef))]
    return sum(size(source, item) for item in parts if item.name in wanted)


def _fields(wanted: set[str]) -> int:
    tree = ast.parse((CATALOG / "revenue_ops.py").read_text("utf-8"))
    [operator] = [item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == "RevenueOps"]
    fields = [item for item in operator.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    return sum((item.end_lineno or 0) - item.lineno + 1 for item in fields if ast.unparse(item.target) in wanted)


if __name__ == "__main__":
    sys.exit(main())
