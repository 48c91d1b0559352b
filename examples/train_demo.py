"""Train pintpot's demo model: a small Qwen3-MoE on the Python documentation that Debian packages.

    python examples/train_demo.py train --work /tmp/demo --minutes 70
    python examples/train_demo.py train --work /tmp/demo --minutes 70 --resume
    python examples/train_demo.py export --work /tmp/demo --out src/pintpot/data/demo.gguf
    python examples/train_demo.py sample --work /tmp/demo "What does os.path.join do?"

(with PYTHONPATH=src where pintpot is not installed; on a machine with other work to do, with
OMP_WAIT_POLICY=PASSIVE too: threads that spin while they wait for one another cost it most of its time).

`train` fetches Debian's `python3.11-doc` with `apt-get download` (or reads `--docs DIR`, the directory that
holds `library/` and `tutorial/`), splits its pages into a training and a held-out part, trains a tokenizer
and then the model. The learning rate follows the clock: it falls to zero just as `--minutes` are over, on
whatever machine. `--resume` goes on after an interruption; before the decline (DECAY_FROM) it may be given
more `--minutes`. Two idle Zen 3 cores train on about 2,000 tokens a second.

`export` takes the last checkpoint, and replaces the figures at the end of the `.md` file beside `--out` with
newly measured ones.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own idiom)
from tokenizers import Tokenizer

from demo.chat import conversation, shorten
from demo.corpus import RowStream, encode_pages, split_pages, train_tokenizer
from demo.docs_text import Entry, Page, read_docs
from demo.export import export_gguf
from demo.model import DemoConfig, DemoModel
from demo.optim import DemoOptimizer
from demo.report import HEADING, chat_prompt, figures, generate, heldout_loss

PACKAGE = "python3.11-doc"
HELDOUT_CHARS = 280_000
BALANCE_WEIGHT = 0.01  # keeps every expert in use, and leaves the skew that real models show
Z_WEIGHT = 0.001
WARMUP = 0.02  # of the time
DECAY_FROM = 0.4  # of the time
LONG_ROWS_FROM = 0.8  # of the time: before it, rows are half the context
EVAL_EVERY_S = 300.0


@dataclass(slots=True)
class Progress:
    """How far training has come; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def fetch_docs(work: Path) -> Path:
    """Download and unpack Debian's PACKAGE; the directory of its HTML pages."""
    deb_dir = work / "deb"
    if not deb_dir.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            sys.exit(f"train_demo: no apt-get here; unpack {PACKAGE} elsewhere and give its html with --docs")
        deb_dir.mkdir(parents=True)
        subprocess.run(["apt-get", "download", PACKAGE], cwd=deb_dir, check=True)
        package = next(deb_dir.glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), str(deb_dir)], check=True)
    return deb_dir / "usr/share/doc/python3.11/html"


def load_pages(work: Path, docs: Path | None) -> list[Page]:
    """The documentation's pages, from the work directory's copy if there is one (reading HTML is slow)."""
    saved = work / "pages.json"
    if saved.exists():
        return [
            Page(p["path"], p["text"], tuple(Entry(**e) for e in p["entries"]))
            for p in json.loads(saved.read_text(encoding="utf-8"))
        ]
    pages = read_docs(docs or fetch_docs(work))
    if not pages:
        sys.exit(f"train_demo: {docs} holds no documentation pages (library/, tutorial/ and so on)")
    saved.write_text(json.dumps([asdict(p) for p in pages]), encoding="utf-8")
    return pages


def prepare(work: Path, docs: Path | None, n_vocab: int) -> tuple[list[Page], list[Page], Tokenizer]:
    """(training pages, held-out pages, tokenizer); the tokenizer and the held-out text are left in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    pages = load_pages(work, docs)
    train_pages, heldout_pages = split_pages(pages, HELDOUT_CHARS)
    (work / "heldout.txt").write_text("\n".join(p.text for p in heldout_pages), encoding="utf-8")
    (work / "heldout.json").write_text(json.dumps([p.path for p in heldout_pages], indent=1))
    saved = work / "tokenizer.json"
    if saved.exists():
        return train_pages, heldout_pages, Tokenizer.from_file(str(saved))
    rng = np.random.default_rng(0)
    entries = [e for p in train_pages for e in p.entries]
    chats = [conversation([entries[i]], rng) for i in rng.permutation(len(entries))[:2000]]
    tokenizer = train_tokenizer([*(p.text for p in train_pages), *chats], n_vocab)
    tokenizer.save(str(saved))
    return train_pages, heldout_pages, tokenizer


def schedule(done: float) -> float:
    """Learning-rate factor at `done` (0..1) of the time: warm-up, a plateau, straight down to zero."""
    return min(1.0, done / WARMUP, max(0.0, 1.0 - done) / (1.0 - DECAY_FROM))


class Trainer:
    """The training loop and what it needs to stop and go on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.work: Path = args.work
        self.limit_s = args.minutes * 60.0
        self.row_tokens: int = args.batch_tokens
        self.config = DemoConfig()
        train_pages, heldout_pages, tokenizer = prepare(self.work, args.docs, self.config.n_vocab)
        self.heldout_ids = encode_pages(tokenizer, heldout_pages)
        entries = [e for p in train_pages for e in p.entries if shorten(e.description)]
        self.rows = RowStream(
            tokenizer, encode_pages(tokenizer, train_pages), entries, args.seed, args.chat_share
        )
        self.model = DemoModel(self.config)
        self.model.init_weights(args.seed)
        self.bfloat16: bool = args.bfloat16
        self.optimizer = DemoOptimizer(
            self.model, args.muon_lr, args.adam_lr, weight_decay=0.05, bfloat16=self.bfloat16
        )
        self.progress = Progress()
        self.log_path = self.work / "log.jsonl"
        if args.resume:
            self._load()
        self._log(
            event="start",
            parameters=sum(p.numel() for p in self.model.parameters()),
            train_tokens=len(self.rows.text_ids),
            heldout_tokens=len(self.heldout_ids),
            heldout_bytes=sum(len(p.text.encode()) for p in heldout_pages),
            entries=len(entries),
        )

    def _log(self, **values: object) -> None:
        line = json.dumps(values)
        print(line, flush=True)
        with self.log_path.open("a") as f:
            f.write(line + "\n")

    def _save(self) -> None:
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state(),
            "rows": self.rows.state(),
            "progress": asdict(self.progress),
        }
        fresh = self.work / "checkpoint.new"
        torch.save(state, fresh)
        fresh.replace(self.work / "checkpoint.pt")

    def _load(self) -> None:
        state = torch.load(self.work / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.restore(state["optimizer"])
        self.rows.restore(state["rows"])
        self.progress = Progress(**state["progress"])

    def run(self) -> None:
        """Train until the time is over, evaluating and saving every EVAL_EVERY_S."""
        began = time.monotonic() - self.progress.seconds
        next_eval = self.progress.seconds + EVAL_EVERY_S
        losses: list[float] = []
        share = torch.zeros(self.config.n_layer, self.config.n_expert)
        while (elapsed := time.monotonic() - began) < self.limit_s:
            done = elapsed / self.limit_s
            ctx = self.config.ctx_train if done >= LONG_ROWS_FROM else self.config.ctx_train // 2
            loss, share_now = self._step(ctx, schedule(done))
            losses.append(loss)
            share = 0.9 * share + 0.1 * share_now
            self.progress = Progress(
                self.progress.step + 1, self.progress.tokens + self.row_tokens, time.monotonic() - began
            )
            if self.progress.step % 10 == 0:
                self._log(
                    **asdict(self.progress), loss=round(sum(losses) / len(losses), 4), lr=schedule(done)
                )
                losses.clear()
            if self.progress.seconds >= next_eval:
                next_eval += EVAL_EVERY_S
                quick, _ = heldout_loss(self.model, self.heldout_ids, self.config.ctx_train, max_rows=16)
                top = share.sort(dim=1, descending=True).values[:, [0, -1]].tolist()
                self._log(
                    event="eval", step=self.progress.step, heldout_loss=round(quick, 4), top_and_least=top
                )
                self._save()
        self._save()
        full, _ = heldout_loss(self.model, self.heldout_ids, self.config.ctx_train)
        self._log(event="end", **asdict(self.progress), heldout_loss=full, heldout_ppl=math.exp(full))

    def _step(self, ctx: int, factor: float) -> tuple[float, torch.Tensor]:
        ids = torch.from_numpy(self.rows.batch(self.row_tokens // ctx, ctx))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            out = self.model(ids[:, :-1])
        loss = F.cross_entropy(out.logits.float(), ids[:, 1:].reshape(-1))
        (loss + BALANCE_WEIGHT * out.balance_loss + Z_WEIGHT * out.z_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.adam.param_groups[0]["params"], 1.0)
        self.optimizer.step(factor)
        return loss.item(), out.expert_share


def load_trained(work: Path) -> tuple[DemoModel, Tokenizer, dict[str, float]]:
    """The model of the last checkpoint, its tokenizer, and how far training had come."""
    if not (work / "checkpoint.pt").exists():
        sys.exit(f"train_demo: {work} holds no checkpoint.pt; run the train command first")
    state = torch.load(work / "checkpoint.pt", weights_only=True)
    model = DemoModel(DemoConfig(**state["config"]))
    model.load_state_dict(state["model"])
    return model, Tokenizer.from_file(str(work / "tokenizer.json")), state["progress"]


def export(work: Path, out: Path) -> None:
    """Write the last checkpoint as `out`, the held-out text beside it, and the figures into `<name>.md`."""
    model, tokenizer, progress = load_trained(work)
    export_gguf(out, model.state_dict(), model.cfg, tokenizer)
    shutil.copyfile(work / "heldout.txt", out.with_name(f"{out.stem}-heldout.txt"))
    _, heldout_pages = split_pages(load_pages(work, None), HELDOUT_CHARS)
    heldout_bytes = sum(len(p.text.encode()) for p in heldout_pages)
    measured = figures(model, tokenizer, encode_pages(tokenizer, heldout_pages), heldout_bytes, progress)
    record = out.with_suffix(".md")
    about = record.read_text(encoding="utf-8").partition(HEADING)[0] if record.exists() else ""
    record.write_text(about + measured, encoding="utf-8")
    print(measured)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="prepare the data and train")
    train.add_argument("--work", type=Path, required=True, help="directory for data, checkpoints and log")
    train.add_argument(
        "--docs", type=Path, help=f"html directory of {PACKAGE}; default: download the package"
    )
    train.add_argument("--minutes", type=float, default=70.0, help="training time, with the interrupted part")
    train.add_argument("--resume", action="store_true", help="go on from the work directory's checkpoint")
    train.add_argument("--batch-tokens", type=int, default=4096, help="tokens per step")
    train.add_argument("--chat-share", type=float, default=0.6, help="share of rows that hold conversations")
    train.add_argument("--muon-lr", type=float, default=6e-3)
    train.add_argument("--adam-lr", type=float, default=4e-3)
    train.add_argument(
        "--bfloat16", action="store_true", help="products in bfloat16: faster on CPUs with avx512_bf16 or AMX"
    )
    train.add_argument("--seed", type=int, default=0)
    ask = commands.add_parser("sample", help="let the last checkpoint answer")
    ask.add_argument("prompt")
    ask.add_argument("--work", type=Path, required=True)
    ask.add_argument(
        "--raw", action="store_true", help="continue the prompt as it stands, with no chat format"
    )
    ask.add_argument("-n", type=int, default=200, help="tokens at most")
    write = commands.add_parser("export", help="write the last checkpoint as GGUF and measure it")
    write.add_argument("--work", type=Path, required=True)
    write.add_argument(
        "--out", type=Path, required=True, help="the .gguf file; text and figures go beside it"
    )
    return parser.parse_args(argv)


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    match args.command:
        case "train":
            Trainer(args).run()
        case "sample":
            model, tokenizer, _ = load_trained(args.work)
            prompt = args.prompt if args.raw else chat_prompt(args.prompt)
            print(generate(model, tokenizer, prompt, args.n))
        case "export":
            export(args.work, args.out)


if __name__ == "__main__":
    main()
