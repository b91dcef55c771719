"""The engine's own names: a class of instances for each contract, and for each an adapter, made from its row.

An instance is a shape (shapes.py) whose verbs are called as the row says. An adapter is the one object of a contract that the
engine calls: its methods take the context as well, and it keeps an instance for each.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol, TypeVar, cast

from eventstore.adapters.contracts import Contract, Method, camel
from eventstore.adapters.shapes import SHAPES, Shape
from eventstore.adapters.shelf import Backend, Once
from eventstore.errors import ConfigError

Configured = Callable[[Contract, tuple[Any, ...]], Backend]
"""Which backend serves a contract in a context, if nobody says otherwise."""

MakeInstance = Callable[..., Any]
"""A class of instances, or what makes one: called with the parts of a context."""

A = TypeVar("A", bound="Adapter")

_OLD_KIND = ("read_value", "has_value", "write_value")
"""What every back end had before it was a class for each contract; some had `keys` and more."""


def instance_class(contract: Contract, configured: Configured) -> type[Shape]:
    """The class of a contract's instances: PersistSignalInstance(symbol, strategy_name, exchange_name) and so on."""
    shape = SHAPES[contract.shape]
    signature = _signature(contract.context, backend=True)

    def __init__(self: Shape, *args: Any, **kwargs: Any) -> None:  # noqa: N807  it becomes that of the class
        given = signature.bind(self, *args, **kwargs)
        backend: Backend | None = given.arguments.get("backend")
        context = given.args[1:]
        shape.__init__(self, *context, backend=lambda: configured(contract, context) if backend is None else backend)

    members: dict[str, Any] = {
        "__doc__": f"{contract.name}, by ({', '.join(contract.context)}). {shape.__doc__}",
        "contract": contract,
        "__init__": _called(__init__, "__init__", signature, "Nothing is opened yet; `backend`: where to keep it, if not where all is."),
    }
    for method in contract.methods:
        verb = getattr(shape, method.verb)
        serve = _streaming if inspect.isasyncgenfunction(verb) else _awaiting
        named = _signature(method.parameters)
        members[method.name] = _called(serve(functools.partial(_own, verb), named), method.name, named, verb.__doc__)
    if contract.disposable:
        members["dispose"] = _dispose
    return type(f"Persist{contract.name}Instance", (shape,), members)


def adapter_class(contract: Contract, kind: type[A]) -> type[A]:
    """The class of a contract's adapter: one method for each of an instance's, which takes the context as well."""
    members: dict[str, Any] = {"__doc__": f"The one adapter of {contract.name}."}
    for method in contract.methods:
        verb = getattr(SHAPES[contract.shape], method.verb)
        serve = _streaming if inspect.isasyncgenfunction(verb) else _awaiting
        signature = _signature(contract.adapter_parameters(method.parameters))
        members[method.name] = _called(
            serve(functools.partial(_through, contract, method), signature), method.name, signature, verb.__doc__
        )

    def use(self: Adapter, make: MakeInstance) -> None:
        self.use(make)

    named = f"use_persist_{contract.name.lower()}_adapter"
    members[named] = _called(use, named, _signature(("make",)), Adapter.use.__doc__)
    if contract.disposable:
        waiting, context = _signature(contract.adapter_parameters(("initial",))), _signature(contract.context)

        def dispose(self: Adapter, *args: Any, **kwargs: Any) -> None:
            self.forget(*context.bind(self, *args, **kwargs).args[1:])

        members["wait_for_init"] = _called(_awaiting(_wait, waiting), "wait_for_init", waiting, _wait.__doc__)
        members["dispose"] = _called(dispose, "dispose", context, Adapter.forget.__doc__)
    return cast(type[A], type(f"Persist{contract.name}Utils", (kind,), members))


def instance_protocol(contract: Contract) -> type:
    """What a class of somebody else's must have to serve a contract: IPersistSignalInstance and so on."""
    waiting, methods = _signature(("initial",)), contract.methods
    members: dict[str, Any] = {"wait_for_init": _called(_owed(), "wait_for_init", waiting, Shape.wait_for_init.__doc__)}
    for method in methods:
        verb = getattr(SHAPES[contract.shape], method.verb)
        members[method.name] = _called(_owed(), method.name, _signature(method.parameters), verb.__doc__)
    doc = f"What the adapter of {contract.name} calls; made by a class that takes ({', '.join(contract.context)})."
    return types.new_class(f"IPersist{contract.name}Instance", (Protocol,), exec_body=lambda body: body.update({"__doc__": doc, **members}))


class _Kept:
    """An instance and its initialisation, which all of its first callers wait for, whatever a foreign class makes of `initial`."""

    def __init__(self, instance: Any) -> None:
        self.instance = instance
        self.ready = Once(lambda: instance.wait_for_init(True))


class Adapter:
    """The one adapter of a contract: keeps an instance for each context, and waits for its initialisation before every call."""

    def __init__(self, contract: Contract, make: MakeInstance) -> None:
        self.contract = contract
        self._make = make
        self._kept: dict[tuple[Any, ...], _Kept] = {}

    def use(self, make: MakeInstance) -> None:
        """From now on make instances by this class, called with the parts of a context. What was written stays where it is.

        Raises ConfigError for a class that lacks a method of the contract's instances.
        """
        _require_methods(self.contract, make)
        self._make = make
        self.clear()

    def clear(self) -> None:
        """Forget the instances; each is made anew when it is next asked for. What was written stays."""
        self._kept.clear()

    def forget(self, *context: Any) -> None:
        """Forget the instance of a context; what was written stays."""
        self._kept.pop(context, None)

    async def instance(self, context: tuple[Any, ...]) -> Any:
        """The instance of a context, initialised."""
        self.contract.parts(context)  # True and 1 are one key of a dictionary, but one of them is no context
        kept = self._kept.get(context)
        if kept is None:
            kept = self._kept[context] = _Kept(self._make(*context))
            await kept.ready()
        else:
            await kept.ready()
            await kept.instance.wait_for_init(False)
        return kept.instance


# ---- the methods


async def _own(verb: Callable[..., Any], instance: Shape, method_arguments: dict[str, Any]) -> Any:
    return verb(instance, *method_arguments.values())


async def _through(contract: Contract, method: Method, adapter: Adapter, given: dict[str, Any]) -> Any:
    instance = await adapter.instance(tuple(given[name] for name in contract.context))
    return getattr(instance, method.name)(*(given[name] for name in method.parameters))


async def _wait(adapter: Adapter, given: dict[str, Any]) -> None:
    """Return when the instance of a context can be used; it need not be called."""
    await adapter.instance(tuple(given[name] for name in adapter.contract.context))


def _dispose(self: Shape) -> None:
    """Nothing is held that would have to be given back; what was written stays."""


def _owed() -> Callable[..., Any]:
    def owed(self: Any, *args: Any, **kwargs: Any) -> Any: ...

    return owed


def _awaiting(reach: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        reached = await reach(self, _arguments(signature, self, args, kwargs))
        return await reached if inspect.isawaitable(reached) else reached

    return method


def _streaming(reach: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    async def method(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for item in await reach(self, _arguments(signature, self, args, kwargs)):
            yield item

    return method


def _arguments(signature: inspect.Signature, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    given = signature.bind(self, *args, **kwargs).arguments
    return {name: given[name] for name in list(signature.parameters)[1:]}


def _signature(names: Iterable[str], *, backend: bool = False) -> inspect.Signature:
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    if backend:
        parameters.append(inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, default=None))
    return inspect.Signature(parameters)


def _called(function: Callable[..., Any], name: str, signature: inspect.Signature, doc: str | None) -> Callable[..., Any]:
    """The function, as an editor and a traceback show it."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _require_methods(contract: Contract, make: object) -> None:
    """Refuse a class that does not have what the adapter will call. Raises ConfigError, with what changed for one of the old kind."""
    wanted = ["wait_for_init", *(method.name for method in contract.methods)]
    called = f"Persist{contract.name}Instance({', '.join(contract.context)})"
    if not callable(make):
        raise ConfigError(f"a class of instances, called as {called}, is expected, not {make!r}")
    if not isinstance(make, type):
        return  # a function may make instances of any class; they are met when they are made
    missing = [name for name in wanted if not _has(make, name)]
    if not missing:
        return
    old = [spelled for name in _OLD_KIND for spelled in (name, camel(name)) if _has(make, spelled)]
    if old:
        raise ConfigError(
            f"{make.__name__} has {', '.join(old)}: that is how a back end was written before version 9 of backtest-kit, one for all"
            f" entities; since then it is a class for each contract, called as {called}, with {', '.join(wanted)}"
        )
    raise ConfigError(f"{make.__name__} lacks {', '.join(missing)}; the adapter of {contract.name} calls {', '.join(wanted)}")


def _has(make: type, name: str) -> bool:
    return callable(getattr(make, name, None))
