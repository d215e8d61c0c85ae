"""The command line: pictures of photos, and a look at models and jobs. Everything goes through the SDK.

Results go to stdout, progress and errors to stderr. Other distributions add subcommands by the entry-point group
`convlens.commands`: a name, and a callable that takes the words behind it and returns the exit status.
"""

from __future__ import annotations

import functools
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convlens.client import (
    ALL_UNITS,
    TLS,
    Activations,
    Blur,
    Client,
    ConvlensError,
    DeadlineExceeded,
    GradCAM,
    InvalidArgument,
    Occlusion,
    Result,
    Saliency,
    TopK,
)  # fmt: skip
from convlens.client.arrays import ValueRange, wire_range
from convlens.client.cancelling import result_of
from convlens.client.connection import VERSION
from convlens.client.figures import Style
from convlens.client.images import pack
from convlens.client.options import CAM_METHODS, REDUCTIONS, SALIENCY_METHODS, Color, Visualization
from convlens.client.targets import Target
from convlens.client.terminal import err, line, out, row, table, visible
from convlens.client.timeouts import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, checked_timeout
from convlens.client.waiting import notes_while_waiting
from convlens.v1 import job_pb2, model_pb2

IN_FLIGHT: Final = 8
"""Images under way at once; the worker puts those that wait into one pass."""
FEW: Final = 5
"""Channels of a layer that are drawn, unless some are picked."""
INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as shells have it."""

app = typer.Typer(
    help="What did this VGG16 look at? Maps of photos, as pictures and arrays, from a Convlens server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
jobs = typer.Typer(help="Look at jobs, and end them.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")


class Sign(StrEnum):
    """Which part of signed maps is drawn."""

    absolute = "absolute"
    positive = "positive"
    negative = "negative"
    both = "both"


def _cmap(name: str | None) -> str | None:
    """Refuses a colour map that does not exist before anything is computed."""
    try:
        return Style(cmap=name).cmap
    except InvalidArgument as error:
        raise typer.BadParameter(error.message) from error


Images = Annotated[list[Path], typer.Argument(help="Image files, or arrays as .npy files.", show_default=False)]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for pictures and arrays, one folder an image.")]
Model = Annotated[str, typer.Option(help="The model's name; by default the first by name of those served.")]
Goal = Annotated[
    str | None,
    typer.Option(
        "--target", help="A class index or label, `top3` for the three best, `all`; by default the predicted."
    ),
]
Span = Annotated[
    str, typer.Option("--value-range", help="Black and white of float arrays (.npy): 0,255 or 0,1 or -1,1.")
]
Opacity = Annotated[float, typer.Option(min=0, max=1, help="Of the strongest parts of a map over the photo.")]
Percentile = Annotated[float, typer.Option(min=0.1, max=100, help="Values above it are drawn as strongly as it.")]
Cmap = Annotated[
    str | None, typer.Option(callback=_cmap, help="A colour map of matplotlib's, such as jet.", show_default=False)
]
Overlay = Annotated[bool, typer.Option(help="Draw maps over the photo, or by themselves.")]
Layers = Annotated[list[str], typer.Option("--layer", help="A layer; may be given several times.", show_default=False)]
Channels = Annotated[str, typer.Option(help="Channels such as 0-4,17; by default all, of which five are drawn.")]
FewChannels = Annotated[
    str, typer.Option("--channels", help="Channels of each --layer, such as 0-4,17; by default the first five.")
]


class Server:
    """Where the server is, as the flags before the subcommand say."""

    target = "localhost:50051"
    token: str | None = None
    tls: TLS | None = None
    timeout = DEFAULT_TIMEOUT
    connect_timeout = DEFAULT_CONNECT_TIMEOUT

    @classmethod
    @contextmanager
    def client(cls) -> Iterator[Client]:
        """A client of it. What the service refuses ends the command with a message and status 1, Ctrl-C with 130.

        While it does not answer, stderr says so.
        """
        options = {"timeout": cls.timeout, "connect_timeout": cls.connect_timeout}
        try:
            with (
                Client(cls.target, token=cls.token, tls=cls.tls, **options) as client,
                notes_while_waiting(client, _note),
            ):
                yield client
        except (ConvlensError, OSError) as error:
            line(err, error, "error:")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def _note(text: str) -> None:
    """A line on stderr."""
    line(err, text)


def _seconds(field: str) -> Callable[[float], float]:
    """Refuses what is no time."""

    def check(seconds: float) -> float:
        try:
            return checked_timeout(seconds, seconds, field)
        except InvalidArgument as error:
            raise typer.BadParameter(error.message) from error

    return check


def _one_of(names: Collection[str]) -> Callable[[str], str]:
    """Refuses what is not among `names`, which it lists."""

    def check(name: str) -> str:
        if name not in names:
            raise typer.BadParameter(f"{name!r} is none; allowed: {', '.join(names)}")
        return name

    return check


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"convlens {VERSION}")
        raise typer.Exit


Address = Annotated[str, typer.Option("--server", envvar="CONVLENS_SERVER", help="HOST:PORT of the server.")]
Token = Annotated[
    str | None, typer.Option(envvar="CONVLENS_TOKEN", help="Your token; the variable is not seen in `ps`.")
]
Tls = Annotated[bool, typer.Option("--tls", envvar="CONVLENS_TLS", help="TLS, trusting the system's authorities.")]
Ca = Annotated[Path | None, typer.Option(envvar="CONVLENS_CA", help="PEM file of whom to trust instead; turns TLS on.")]
Cert = Annotated[Path | None, typer.Option(envvar="CONVLENS_CERT", help="PEM file of your own certificate, for mTLS.")]
Key = Annotated[Path | None, typer.Option(envvar="CONVLENS_KEY", help="PEM file of its key.")]
Timeout = Annotated[
    float,
    typer.Option(callback=_seconds("timeout"), help="Seconds each image may take, queueing included; inf: no limit."),
]
ConnectTimeout = Annotated[
    float,
    typer.Option(
        envvar="CONVLENS_CONNECT_TIMEOUT",
        callback=_seconds("connect_timeout"),
        help="Seconds after which a server that was never reached is given up.",
    ),
]
Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")]


@app.callback()
def _main(
    server: Address = Server.target,
    token: Token = None,
    tls: Tls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    timeout: Timeout = Server.timeout,
    connect_timeout: ConnectTimeout = Server.connect_timeout,
    _asked: Version = False,
) -> None:
    Server.target, Server.token, Server.timeout, Server.connect_timeout = server, token, timeout, connect_timeout
    Server.tls = TLS(ca, cert, key) if tls or ca or cert or key else None


@app.command()
def saliency(
    images: Images,
    out_: Out = Path("out"),
    method: Annotated[
        str, typer.Option(callback=_one_of(SALIENCY_METHODS), help=f"One of {', '.join(SALIENCY_METHODS)}.")
    ] = "vanilla",
    signed: Annotated[bool, typer.Option("--signed", help="Keep signs and colour channels.")] = False,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Noisy copies of the smooth methods; 25.", show_default=False)
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Their σ as a share of the image's range; 0.15.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of a path from each baseline; 25.", show_default=False)
    ] = None,
    baselines: Annotated[
        list[str],
        typer.Option("--baseline", help="black, white, gray, blur or R,G,B; black and white.", show_default=False),
    ] = [],  # noqa: B006 - typer's way
    sign: Annotated[Sign, typer.Option(help="What is drawn of a signed map.")] = Sign.both,
    model: Model = "",
    target: Goal = None,
    value_range: Span = "",
    opacity: Opacity = 0.65,
    percentile: Percentile = 99.5,
    cmap: Cmap = None,
    overlay: Overlay = True,
) -> None:
    """Which pixels the class's score hangs on: its gradient, and what is made of it."""
    style = Style(overlay, opacity, percentile, sign.value if signed else "absolute", cmap)
    starts = [_baseline(text) for text in baselines]
    wanted = Saliency(method, signed, samples=samples, noise=noise, steps=steps, baselines=starts)
    _explain(images, [wanted], model, target, out_, style, value_range)


@app.command()
def grad_cam(
    images: Images,
    out_: Out = Path("out"),
    layers: Annotated[
        list[str],
        typer.Option("--layer", help="A convolution or pooling layer, or several; the last one."),
    ] = [],  # noqa: B006 - typer's way
    method: Annotated[
        str, typer.Option(callback=_one_of(CAM_METHODS), help=f"One of {', '.join(CAM_METHODS)}.")
    ] = "grad_cam",
    signed: Annotated[bool, typer.Option("--signed", help="Keep what speaks against the class, too.")] = False,
    sign: Annotated[Sign, typer.Option(help="What is drawn of a signed map.")] = Sign.both,
    model: Model = "",
    target: Goal = None,
    value_range: Span = "",
    opacity: Opacity = 0.65,
    percentile: Percentile = 100.0,
    cmap: Cmap = None,
    overlay: Overlay = True,
) -> None:
    """Which region speaks for the class: Grad-CAM and its kin."""
    style = Style(overlay, opacity, percentile, sign.value if signed else "absolute", cmap)
    wanted = [GradCAM(layer, method=method, signed=signed) for layer in layers or (None,)]
    _explain(images, wanted, model, target, out_, style, value_range)


@app.command()
def occlusion(
    images: Images,
    out_: Out = Path("out"),
    patch: Annotated[int | None, typer.Option(min=1, help="The square's side, pixels; 32.", show_default=False)] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="How far it is moved; half of it.", show_default=False)
    ] = None,
    sign: Annotated[Sign, typer.Option(help="What is drawn of the map.")] = Sign.both,
    model: Model = "",
    target: Goal = None,
    value_range: Span = "",
    opacity: Opacity = 0.65,
    percentile: Percentile = 100.0,
    cmap: Cmap = None,
    overlay: Overlay = True,
) -> None:
    """What the class's score loses where a square covers the photo."""
    style = Style(overlay, opacity, percentile, sign.value, cmap)
    _explain(images, [Occlusion(patch, stride)], model, target, out_, style, value_range)


@app.command()
def activations(
    images: Images,
    layers: Layers,
    out_: Out = Path("out"),
    channels: Channels = "",
    reduction: Annotated[
        str, typer.Option(callback=_one_of(REDUCTIONS), help=f"Of the channels; one of {', '.join(REDUCTIONS)}.")
    ] = "none",
    model: Model = "",
    value_range: Span = "",
    cmap: Cmap = None,
) -> None:
    """What layers make of the photo, as a grid: layers as rows, channels as columns."""
    picked = _channels(channels)
    style = Style(cmap=cmap, columns=len(picked or range(FEW)))
    _explain(images, [Activations(layers, picked, reduction)], model, None, out_, style, value_range)


@app.command()
def visualize(
    images: Images,
    out_: Out = Path("out"),
    layers: Layers = [],  # noqa: B006 - typer's way
    channels: FewChannels = "",
    model: Model = "",
    target: Goal = None,
    value_range: Span = "",
    opacity: Opacity = 0.65,
    percentile: Percentile = 99.5,
    cmap: Cmap = None,
    overlay: Overlay = True,
) -> None:
    """Saliency plain and guided, Grad-CAM, and the outputs of each --layer, in one pass.

    Guided saliency is left out, with the reason, where the model hides activations from it.
    """
    picked = _channels(channels)

    def fitted(card: model_pb2.Model) -> list[Visualization]:
        """Those that the model can be explained by."""
        wanted: list[Visualization] = [Saliency(), GradCAM()]
        if why := card.unavailable_methods.get("guided"):
            _note(f"note: guided is left out: {why}")
        else:
            wanted.insert(1, Saliency("guided"))
        there = {layer.name: layer.shape[-1] for layer in card.layers}
        few = {layer: picked or range(min(FEW, there.get(layer, FEW))) for layer in layers}
        return wanted + [Activations(layer, few[layer]) for layer in layers]

    style = Style(overlay, opacity, percentile, cmap=cmap)
    _explain(images, fitted, model, target, out_, style, value_range)


@app.command()
def models() -> None:
    """The models served, what their input means, and those that workers refused to serve."""
    served = table("name", "source", "input", "preprocess", "classes", "layers", "Grad-CAM at", "precision", "weights",
        "workers")  # fmt: skip
    refused = table("refused", "source", "why")
    with Server.client() as client:
        for it in client.models():
            size = "×".join(map(str, it.input_shape))
            precision = model_pb2.Precision.Name(it.precision).removeprefix("PRECISION_").lower()
            source = f"{it.source} (synthetic)" if it.synthetic and it.source != "null" else it.source
            meaning = f"{it.preprocess} (assumed)" if it.preprocess_assumed else it.preprocess
            classes, layers = str(it.classes or it.layers[-1].shape[-1]), str(len(it.layers))
            cells = (source, size, meaning, classes, layers, it.cam_layer, precision, it.digest[:8], it.workers)
            row(served, it.name, *cells)
        for model in client.refused_models():
            row(refused, model.name, model.source, model.reason)
    out.print(served)
    if refused.row_count:
        out.print(refused)


@app.command()
def info() -> None:
    """The server's version and limits."""
    with Server.client() as client:
        found = client.server_info()
    facts = table("what", "value")
    row(facts, "version", found.version)
    row(facts, "default model", found.default_model or "none")
    for field, value in found.limits.ListFields():
        text = f"{value.ToTimedelta().total_seconds():g} s" if hasattr(value, "ToTimedelta") else f"{value:,}"
        row(facts, field.name.replace("_", " "), text)
    out.print(facts)


@jobs.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only those queued, running, succeeded, failed …")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
) -> None:
    """Jobs, newest first."""
    listed = table("id", "state", "model", "images", "created", "took", "result")
    with Server.client() as client:
        for _, job in zip(range(most), client.jobs(state), strict=False):
            took = (job.end_time.ToNanoseconds() - job.create_time.ToNanoseconds()) / 1e9
            size = f"{job.result_bytes:,} B" if job.result_bytes else ""
            created = job.create_time.ToDatetime().strftime("%F %T")
            ended = f"{took:.2f} s" if job.HasField("end_time") else ""
            row(listed, job.id, _state(job), job.model, job.images, created, ended, size)
    out.print(listed)


@jobs.command()
def show(job_id: Annotated[str, typer.Argument(help="The job's id.", show_default=False)]) -> None:
    """Everything about a job."""
    with Server.client() as client:
        _show(client.job(job_id).status())


@jobs.command()
def cancel(job_id: Annotated[str, typer.Argument(help="The job's id.", show_default=False)]) -> None:
    """Ends a job; one that has ended is left as it is."""
    with Server.client() as client:
        _show(client.job(job_id).cancel())


def _explain(
    images: Sequence[Path],
    wanted: Sequence[Visualization] | Callable[[model_pb2.Model], Sequence[Visualization]],
    model: str,
    target: str | None,
    folder: Path,
    style: Style,
    value_range: str,
) -> None:
    """Every image through the server; pictures and arrays below `folder`, a line each. Status 1 when any failed.

    `wanted` is a function where it depends on the model: of its card.
    """
    names = _names(images)
    failed = 0
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=err, transient=True)
    goal, span = _target(target), _value_range(value_range)
    assumed = set[str]()
    with Server.client() as client, _threads(client) as pool, bar:
        offered = functools.cache(lambda: wanted(_card(client, model)) if callable(wanted) else wanted)

        def explain(path: Path) -> Result:
            packed = pack([path], span)  # what is no image is refused before the server is asked anything
            return client.visualize(packed, offered(), model=model, target=goal)

        futures = [pool.submit(explain, path) for path in images]
        for path, name, future in zip(images, names, bar.track(futures, description="images"), strict=True):
            try:
                result = result_of(future)
                written = result.save(folder / name, **asdict(style))
            except (ConvlensError, OSError) as error:
                if isinstance(error, ConvlensError) and not isinstance(error, InvalidArgument | DeadlineExceeded):
                    raise  # the other images would fare no better
                failed += 1
                line(err, str(error).removeprefix(f"{path}: "), f"{path}:")
                continue
            if result.preprocess_assumed and result.model not in assumed:
                assumed.add(result.model)
                _note(
                    f"note: model {result.model!r} does not say what its input means; {result.preprocess!r} is assumed "
                    "(see convlens models)"
                )
            line(out, visible(f"{path}: {_seen(result)}→ {', '.join(map(str, written))}"))
    if failed:
        raise typer.Exit(1)


def _card(client: Client, model: str) -> model_pb2.Model:
    """The card of the model, by default the server's; an empty one where none is served, which the call will say."""
    name = model or client.server_info().default_model
    return client.model(name) if name else model_pb2.Model()


@contextmanager
def _threads(client: Client) -> Iterator[ThreadPoolExecutor]:
    """Threads to call `client` from; an error, or Ctrl-C, does not wait for the calls that are under way."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            client._close_for_good()
            raise


def _names(images: Sequence[Path]) -> list[str]:
    """A folder's name for each image: its stem, or its whole name where two have the same stem."""
    stems = Counter(path.stem for path in images)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in images]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[i] = f"{name}-{seen[name]}"
    return names


def _seen(result: Result) -> str:
    """The best classes of a result's only image."""
    seen = ", ".join(map(str, result.predictions[0][:3]))
    return f"{seen} " if seen else ""


def _baseline(text: str) -> Color | Blur:
    """A baseline as it is typed."""
    if text == "blur":
        return Blur()
    return [float(part) for part in text.split(",")] if text[:1].isdigit() else text


def _target(text: str | None) -> Target:
    """A target as it is typed; None for the predicted class."""
    if text is None:
        return None
    if text == "all":
        return ALL_UNITS
    digits = text.removeprefix("top")
    if digits.isdecimal():
        return TopK(int(digits)) if text.startswith("top") else int(digits)
    if not text.strip() or text.startswith("-"):
        raise typer.BadParameter(f"{text!r} is none; allowed: a class index or label, topN, all", param_hint="--target")
    return text


def _value_range(text: str) -> ValueRange | None:
    """A value range as it is typed: 0,1 or 0:1."""
    if not text:
        return None
    try:
        black, white = (float(part) for part in re.split("[,:]", text))
        wire_range((black, white))
    except ValueError as error:  # InvalidArgument is one
        message = f"{text!r} is none; allowed: 0,255, 0,1 and -1,1"
        raise typer.BadParameter(message, param_hint="--value-range") from error
    return black, white


def _channels(text: str) -> list[int] | None:
    """Channels as they are typed: 0-4,17."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()) or int(last or first) < int(first):
            raise typer.BadParameter(f"{part!r} is none; allowed: such as 0-4,17", param_hint="--channels")
        found += range(int(first), int(last or first) + 1)
    return found or None


def _state(job: job_pb2.Job) -> str:
    return job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()


def _show(job: job_pb2.Job) -> None:
    facts = table("what", "value")
    for field, value in job.ListFields():
        text = value.ToDatetime().strftime("%F %T") + " UTC" if hasattr(value, "ToDatetime") else str(value).strip()
        row(facts, field.name.replace("_", " "), _state(job) if field.name == "state" else text)
    out.print(facts)


def _runner(entry: metadata.EntryPoint) -> Callable[[typer.Context], None]:
    """A subcommand of another distribution, loaded when it is called; all words behind it are its own."""

    def run(context: typer.Context) -> None:
        sys.exit(entry.load()(context.args))

    return run


HELP: Final = {
    "up": "Run everything on this machine",
    "doctor": "Say what is set up wrongly",
    "token": "Make tokens for a server's callers",
    "model": "Check a model's file before it is served",
}

for _entry in sorted(metadata.entry_points(group="convlens.commands"), key=lambda it: it.name):
    app.command(
        _entry.name,
        help=f"{HELP.get(_entry.name, f'Run the {_entry.name}')}: `convlens {_entry.name} --help`.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(_runner(_entry))
