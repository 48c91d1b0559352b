"""Every error pintpot raises on purpose.

PintpotError                 one clear line for the user; the CLI prints it and exits 1
├── ModelFileError           the file is not what it should be: damaged, truncated, hostile
│   └── UnsupportedError     the file is fine, but holds an architecture, type or tokenizer we cannot run
├── TemplateError            a chat template is missing, broken, or ran past its limits
├── ContextLengthError       the prompt (and answer) do not fit the context
├── MemoryLimitError         what was asked for needs more memory than the machine has
│   └── AcceleratorMemoryError   ... than may be used of the accelerator
├── AcceleratorError         the accelerator is not there, not usable, or failed
└── UsageError               a flag or argument is wrong; the CLI exits 2
"""


class PintpotError(Exception):
    """Base of the tree. The message is one line that names the file, tensor or flag and says what to do."""


class ModelFileError(PintpotError):
    """A model file is damaged, truncated, inconsistent or not GGUF at all."""


class UnsupportedError(ModelFileError):
    """A valid file that asks for something this version cannot run."""


class TemplateError(PintpotError):
    """A chat template is missing, does not compile, or exceeded its limits."""


class ContextLengthError(PintpotError):
    """The tokens do not fit the context."""


class MemoryLimitError(PintpotError):
    """The model's caches or activations cannot fit this machine's memory."""


class AcceleratorMemoryError(MemoryLimitError):
    """An allocation on the accelerator would exceed what may be used of it."""


class AcceleratorError(PintpotError):
    """No such accelerator, its software is missing or too old, or it failed."""


class UsageError(PintpotError):
    """An argument or flag has a value that cannot be used."""
