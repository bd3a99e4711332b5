"""Text to machine code in this process: parsed, its functions put in place, code generated, linked."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from . import llvm_cache

_lock = threading.RLock()
_counter = itertools.count()


class Library:
    """Linked code: addresses by name. It is unloaded when nothing refers to it any more."""

    def __init__(self, tracker: Any, names: Sequence[str]) -> None:
        self._tracker = tracker
        self.addresses: dict[str, int] = {name: tracker[name] for name in names}


@cache
def targets() -> None:
    """Every target that LLVM was built with, made ready."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@cache
def machine(opt: int = 2) -> Any:
    """The target machine of this process."""
    targets()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=opt, reloc="pic",
        codemodel="default", jit=True)


@cache
def _linker() -> Any:
    return llvm.create_lljit_compiler(machine(), use_jit_link=True)


@cache
def lanes() -> int:
    """How many doubles a vector register of this machine holds."""
    features = llvm.get_host_cpu_features()
    return 8 if features.get("avx512f") else 4 if features.get("avx") else 2


def registers() -> int:
    """How many vector registers this machine has."""
    features = llvm.get_host_cpu_features()
    return 32 if features.get("avx512f") or not _is_x86() else 16


def pause() -> str:
    """The instruction by which a core says that it only looks at memory again and again."""
    return "call void @llvm.x86.sse2.pause()" if _is_x86() else "fence seq_cst"


def _is_x86() -> bool:
    return str(llvm.get_default_triple()).startswith(("x86_64", "amd64"))


def object_code(text: str, target: Any) -> bytes:
    """The object file of a module for a target machine."""
    return bytes(target.emit_object(_prepared(text, target)))


def assembly(text: str, target: Any) -> str:
    """The assembly of a module for a target machine."""
    return str(target.emit_assembly(_prepared(text, target)))


def _prepared(text: str, target: Any) -> Any:
    """The module with its functions put in place of calls where the text asks for it."""
    context = llvm.create_context()
    parsed = llvm.parse_assembly(text, context)
    parsed.triple = target.triple
    parsed.data_layout = str(target.target_data)
    if "alwaysinline" in text or "; arena " in text or text.startswith("; runtime"):
        builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=0))
        passes = llvm.create_new_module_pass_manager()
        passes.add_always_inliner_pass()
        passes.add_sroa_pass()
        passes.add_new_gvn_pass()
        passes.run(parsed, builder)
    return parsed


def link(code: bytes, names: Sequence[str]) -> Library:
    """Load an object file; `names` are the functions that are asked for."""
    with _lock:
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name in names:
            builder.export_symbol(name)
        return Library(builder.link(_linker(), f"slpc.{next(_counter)}"), names)


def load(text: str, names: Sequence[str]) -> Library:
    """The machine code of a module."""
    level = effort(text)
    here = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), llvm.get_default_triple())
    versions = (llvmlite.__version__, ".".join(map(str, llvm.llvm_version_info)))
    code = llvm_cache.cached((text, *here, *versions, str(level)), lambda: object_code(text, machine(level)))
    return link(code, names)


def effort(text: str) -> int:
    """LLVM's level of code generation, from 0 to 2: the longer the text, the less; at 0 code runs about 1.3 times as
    long and is made five times as fast."""
    size = len(text)
    return 2 if size < 200_000 else 1 if size < 3_000_000 else 0
