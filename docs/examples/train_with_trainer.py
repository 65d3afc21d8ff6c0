"""Hugging Face's Trainer with Muon: the optimizer is made from the model and handed over.

python train_with_trainer.py        needs transformers and accelerate; downloads nothing
"""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import slalom
from slalom.schedules import parse

STEPS = 60


class Counting(torch.utils.data.Dataset):
    """Sequences that count upwards modulo 32."""

    def __len__(self) -> int:
        """Return how many there are."""
        return 512

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        """Return one that begins anywhere."""
        symbols = (place + torch.arange(16)) % 32
        return {"input_ids": symbols, "labels": symbols}


def main() -> float:
    """Train a small Llama, and return the mean loss of the run."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    # The model, not its parameters: its layers tell who is a hidden matrix. `optimizer_cls_and_kwargs` hands
    # parameters over, which does for AdamW and its like and makes Muon guess.
    optimizer = slalom.create("muon", model, lr=0.02)
    schedule = parse("warmup 5%, cosine", steps=STEPS).attach(optimizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=STEPS, per_device_train_batch_size=16, logging_steps=20, report_to=[],
            save_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=Counting(), optimizers=(optimizer, schedule))
        return float(trainer.train().training_loss)


if __name__ == "__main__":
    print(f"mean loss {main():.3f}; guessing has {torch.tensor(32.0).log():.3f}")
