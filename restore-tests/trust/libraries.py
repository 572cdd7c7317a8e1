"""Writes checkpoints in which nothing is wrong, by the libraries themselves: for `scripts/pickles-show --libraries`.

    libraries.py FOLDER

Models are tiny and were trained for a step or two on random numbers; what is saved, and how, is what the libraries, and
the training scripts that use them, do. Each folder below FOLDER is one kind of file. Nothing is fetched.
"""

import argparse
import collections
import datetime
import os
import pathlib
import pickle
import random
import shutil
import sys

# Before any of them is loaded.
os.environ.update(KERAS_BACKEND="torch", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

import numpy
import torch
from torch import nn

SEED = 7
# As PyTorch wrote before 1.6.
OLD = {"_use_new_zipfile_serialization": False}


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))


def stepped(model, optimiser, steps=2):
    """After some steps of training, so that there is a state to save."""
    for _ in range(steps):

        def loss():
            optimiser.zero_grad()
            value = model(torch.rand(2, 3, 8, 8)).square().sum()
            value.backward()
            return value

        optimiser.step(loss)
    return optimiser


class Embedding(nn.Module):
    """A tied output layer, as language models have it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 50, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("position_ids", torch.arange(16).expand(1, -1))

    def forward(self, tokens):
        return self.head(self.norm(self.embed(tokens)))


def state_dicts(folder):
    """Tensors by their names, as PyTorch itself is asked to save them."""
    model = network()
    state = model.state_dict()
    torch.save(state, folder / "torch-state.pt")
    torch.save(state, folder / "torch-state-old-format.pth", **OLD)
    torch.save(state, folder / "torch-state-protocol-4.pt", pickle_protocol=4)
    torch.save(dict(state), folder / "torch-dict.pt")
    torch.save({"state_dict": nn.DataParallel(model).state_dict()}, folder / "torch-data-parallel.pth.tar")
    torch.save(torch.compile(model).state_dict(), folder / "torch-compiled.pt")
    torch.save(list(model.parameters()), folder / "torch-parameters.pt")
    torch.save(dict(model.named_parameters()), folder / "torch-named-parameters-old-format.pt", **OLD)
    torch.save(Embedding().state_dict(), folder / "torch-tied.pt")
    torch.save(Embedding().state_dict(), folder / "torch-tied-old-format.bin", **OLD)
    for name, kind in [("half", torch.float16), ("bfloat16", torch.bfloat16), ("double", torch.float64)]:
        torch.save(network().to(kind).state_dict(), folder / f"torch-{name}.pt")
    torch.save(network().to(memory_format=torch.channels_last).state_dict(), folder / "torch-channels-last.pt")
    with torch.device("meta"):
        torch.save(network().state_dict(), folder / "torch-meta.pt")
    torch.save(torch.rand(4, 8), folder / "torch-tensor.pt")
    torch.save({"<concept>": torch.rand(768)}, folder / "torch-textual-inversion.bin")
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    averaged.update_parameters(model)
    torch.save(averaged.state_dict(), folder / "torch-averaged.pt")
    torch.save({"params": state, "params_ema": averaged.module.state_dict()}, folder / "torch-ema.pth")


def tensors(folder):
    """Tensors of every kind."""
    base = torch.arange(24.0).reshape(4, 6)
    views = {"rows": base[1:3], "columns": base[:, 2], "turned": base.t(), "spread": base[:1].expand(5, 6), "none": base[:0]}
    torch.save(views, folder / "torch-views.pt")
    integers = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
    torch.save({str(kind): torch.ones(3, dtype=kind) for kind in integers}, folder / "torch-integers.pt")
    unsigned = [torch.uint16, torch.uint32, torch.uint64]
    torch.save({str(kind): torch.ones(3, dtype=kind) for kind in unsigned}, folder / "torch-unsigned.pt")
    pairs = [torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.complex128)]
    torch.save({"a": pairs[0], "b": pairs[1], "conjugate": pairs[0].conj()}, folder / "torch-complex.pt")
    floats = [torch.float8_e4m3fn, torch.float8_e5m2]
    torch.save({str(kind): base.to(kind) for kind in floats}, folder / "torch-float8.pt")
    packed = torch.zeros(4, 3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    torch.save({"weight": packed, "scale": torch.ones(4).to(torch.float8_e8m0fnu)}, folder / "torch-float4.pt")
    sparse = {"coo": base.to_sparse(), "csr": base.to_sparse_csr(), "csc": base.to_sparse_csc(), "bsr": base.to_sparse_bsr((2, 2))}
    torch.save(sparse, folder / "torch-sparse.pt")
    by_channel = torch.quantize_per_channel(base, torch.ones(4), torch.zeros(4, dtype=torch.int64), 0, torch.qint8)
    torch.save({"tensor": torch.quantize_per_tensor(base, 0.1, 3, torch.quint8), "channel": by_channel}, folder / "torch-quantised.pt")
    torch.save(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), folder / "torch-nested.pt")
    marked = nn.Parameter(torch.rand(3))
    marked.tensor_model_parallel = True
    torch.save({"weight": marked, "lazy": nn.LazyLinear(3).weight}, folder / "torch-marked-parameter.pt")
    noted = torch.rand(3)
    noted.note = "made by hand"
    torch.save({"weight": noted}, folder / "torch-marked-tensor.pt")


def optimisers(folder):
    """What goes on with a training: each optimiser's state, each schedule's, and all of it in one file."""
    of = {
        "adam": lambda given: torch.optim.Adam(given, amsgrad=True),
        "adamw": lambda given: torch.optim.AdamW(given, lr=torch.tensor(1e-3), capturable=False, foreach=False),
        "sgd": lambda given: torch.optim.SGD(given, lr=0.1, momentum=0.9),
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
        "adafactor": torch.optim.Adafactor,
        "lbfgs": torch.optim.LBFGS,
    }
    for name, make in of.items():
        model = network()
        torch.save(stepped(model, make(model.parameters())).state_dict(), folder / f"torch-optimiser-{name}.pt")
    model = network()
    adam = stepped(model, torch.optim.Adam(model.parameters()))
    torch.save(adam.state_dict(), folder / "torch-optimiser-old-format.pt", **OLD)
    schedules = torch.optim.lr_scheduler
    sgd = stepped(model, torch.optim.SGD(model.parameters(), lr=0.1))
    made = [
        schedules.CosineAnnealingLR(adam, 10),
        schedules.ReduceLROnPlateau(adam),
        schedules.MultiStepLR(adam, [3, 6]),
        schedules.LambdaLR(adam, lambda epoch: 0.9**epoch),
        schedules.OneCycleLR(sgd, 0.1, total_steps=5),
    ]
    torch.save({type(one).__name__: one.state_dict() for one in made}, folder / "torch-schedules.pt")


def trainings(folder):
    """As training scripts write them: weights, optimiser, schedule, random numbers, and what is noted beside."""
    model = network()
    adam = stepped(model, torch.optim.AdamW(model.parameters()))
    schedule = torch.optim.lr_scheduler.StepLR(adam, 3)
    whole = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": model.state_dict(),
        "best_acc1": torch.tensor(71.3),
        "optimizer": adam.state_dict(),
        "scheduler": schedule.state_dict(),
    }
    torch.save(whole, folder / "torch-imagenet-example.pth.tar")
    args = argparse.Namespace(lr=0.1, output_dir=pathlib.Path("/out"), device=torch.device("cpu"), betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler("cpu").state_dict()
    torch.save(
        {"model": model.state_dict(), "optimizer": adam.state_dict(), "scaler": scaler, "args": args}, folder / "torch-arguments.pth"
    )
    figures = {"best": numpy.float64(0.713), "seen": numpy.int64(512), "history": numpy.arange(3.0)}
    losses = collections.defaultdict(list, loss=[0.5])
    torch.save({**whole, **figures, "losses": losses}, folder / "torch-numpy-numbers.pth")
    noted = {"torch": torch.__version__, "time": datetime.datetime(2026, 1, 1), "kind": torch.bfloat16, "layout": torch.strided}
    torch.save({"model": model.state_dict(), "shape": torch.Size([1, 2]), **noted}, folder / "torch-notes.pt")
    numbers = {"torch": torch.get_rng_state(), "numpy": numpy.random.get_state(), "python": random.getstate()}
    torch.save(numbers, folder / "torch-random-numbers.pth")
    torch.save(numbers, folder / "torch-random-numbers-old-format.pth", **OLD)
    torch.save({"g_ema": model.state_dict(), "d": network().state_dict(), "latent_avg": torch.rand(8)}, folder / "torch-two-networks.pt")
    torch.save((model.state_dict(), adam.state_dict()), folder / "torch-tuple.pt")


def lightning(folder):
    import pytorch_lightning

    class Module(pytorch_lightning.LightningModule):
        def __init__(self, width=10, rate=0.1):
            super().__init__()
            self.save_hyperparameters()
            self.net = network()

        def training_step(self, batch, _):
            loss = self.net(batch).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            adam = torch.optim.Adam(self.parameters(), lr=self.hparams.rate)
            return [adam], [torch.optim.lr_scheduler.StepLR(adam, 1)]

    callbacks = [
        pytorch_lightning.callbacks.ModelCheckpoint(folder, monitor="loss", save_last=True, filename="lightning-best"),
        pytorch_lightning.callbacks.EarlyStopping("loss"),
    ]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pytorch_lightning.Trainer(accelerator="cpu", max_epochs=2, callbacks=callbacks, **quiet)
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.rand(4, 3, 8, 8), batch_size=2))
    (folder / "last.ckpt").rename(folder / "lightning-last.ckpt")
    trainer.save_checkpoint(folder / "lightning-weights.ckpt", weights_only=True)


def small(config, **more):
    """A model of a few thousand numbers, of this kind."""
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return config(**{**sizes, **more})


def language_models(folder):
    """The layouts of transformers, as they were saved before safetensors, and what its trainer writes."""
    import transformers as t

    gpt2 = t.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    t5 = t.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    whisper = t.WhisperConfig(vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, pad_token_id=0, **heads)
    made = {
        "bert": t.BertForMaskedLM(small(t.BertConfig)),
        "llama": t.LlamaForCausalLM(small(t.LlamaConfig, num_key_value_heads=1)).half(),
        "t5": t.T5ForConditionalGeneration(t5),
        "whisper": t.WhisperForConditionalGeneration(whisper),
    }
    for name, model in made.items():
        torch.save(model.state_dict(), folder / f"transformers-{name}-pytorch_model.bin")
    torch.save(t.GPT2LMHeadModel(gpt2).state_dict(), folder / "transformers-gpt2-old-format-pytorch_model.bin", **OLD)
    trainer(t, t.GPT2LMHeadModel(gpt2), folder)


def trainer(t, model, folder):
    """A run of transformers' own trainer."""

    class Words(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, n):
            return {"input_ids": torch.arange(8) + n, "labels": torch.arange(8) + n}

    out = folder / "trainer"
    steps = {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 2}
    args = t.TrainingArguments(str(out), report_to=[], use_cpu=True, disable_tqdm=True, **steps)
    t.Trainer(model, args, train_dataset=Words()).train()
    for name in ["optimizer.pt", "scheduler.pt", "rng_state.pth"]:
        (out / "checkpoint-2" / name).rename(folder / f"transformers-trainer-{name}")
    shutil.rmtree(out)


def hub(folder):
    """Other libraries of the Hugging Face hub."""
    import accelerate, diffusers, huggingface_hub, peft, timm, transformers

    out = folder / "out"
    shards = Embedding(), folder / "shards"
    shards[1].mkdir()
    huggingface_hub.save_torch_model(*shards, safe_serialization=False, max_shard_size=3000)
    for n, path in enumerate(sorted(shards[1].glob("*.bin"))):
        path.rename(folder / f"huggingface_hub-shard-{n}.bin")
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "block_out_channels": (8, 8)}
    unet = diffusers.UNet2DModel(sample_size=8, norm_num_groups=4, layers_per_block=1, **blocks)
    unet.save_pretrained(out, safe_serialization=False)
    (out / "diffusion_pytorch_model.bin").rename(folder / "diffusers-diffusion_pytorch_model.bin")
    torch.save(diffusers.training_utils.EMAModel(unet.parameters()).state_dict(), folder / "diffusers-ema.pt")
    gpt2 = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    adapter = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    tuned = peft.get_peft_model(transformers.GPT2LMHeadModel(gpt2), adapter)
    tuned.save_pretrained(out, safe_serialization=False)
    (out / "adapter_model.bin").rename(folder / "peft-adapter_model.bin")
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    averaged = timm.utils.ModelEmaV3(vit).module.state_dict()
    noted = {"epoch": 1, "arch": "vit_tiny", "metric": 0.7}
    torch.save({"state_dict": vit.state_dict(), "state_dict_ema": averaged, **noted}, folder / "timm-vit.pth.tar")
    runner = accelerate.Accelerator(cpu=True)
    model, optimiser = runner.prepare(network(), torch.optim.Adam(network().parameters()))
    runner.save_state(str(out), safe_serialization=False)
    for name in ["pytorch_model.bin", "optimizer.bin", "random_states_0.pkl"]:
        (out / name).rename(folder / f"accelerate-{name}")
    for made in [out, shards[1]]:
        shutil.rmtree(made)


def vision(folder):
    import torchvision.models as models

    torch.save(models.resnet18(weights=None).state_dict(), folder / "torchvision-resnet18.pth")
    torch.save(models.mobilenet_v3_small(weights=None).state_dict(), folder / "torchvision-mobilenet-old-format.pth", **OLD)
    plain = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {nn.Linear}, dtype=torch.qint8)
    torch.save(plain.state_dict(), folder / "torch-quantised-layers.pt")


def reinforcement(folder):
    import gymnasium
    import stable_baselines3

    agent = stable_baselines3.PPO("MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=16, batch_size=8, n_epochs=1, device="cpu")
    agent.learn(16)
    agent.save(folder / "stable_baselines3-agent.zip")


def paddle_files(folder):
    import paddle

    layer = paddle.nn.Linear(8, 4)
    adam = paddle.optimizer.Adam(parameters=layer.parameters())
    layer(paddle.rand([2, 8])).sum().backward()
    adam.step()
    paddle.save(layer.state_dict(), str(folder / "paddle-model.pdparams"))
    paddle.save(adam.state_dict(), str(folder / "paddle-model.pdopt"))


def arrays(folder):
    """Arrays of NumPy in pickles and files of joblib, without anybody's classes."""
    import joblib

    weights = {"w": numpy.random.rand(8, 4).astype("<f4"), "b": numpy.zeros(4), "rounds": numpy.int64(3)}
    weights["classes"] = numpy.array(["cat", "dog"])
    (folder / "numpy-weights.pkl").write_bytes(pickle.dumps(weights))
    (folder / "numpy-weights-protocol-2.pkl").write_bytes(pickle.dumps(weights, 2))
    (folder / "numpy-names.pkl").write_bytes(pickle.dumps(numpy.array(["a", "b"], dtype=object)))
    joblib.dump({"threshold": 0.5, "labels": ["a", "b"]}, folder / "joblib-labels.joblib")


def whole_torch(folder):
    """Objects of classes, which PyTorch's own loader refuses unless it is told to trust them."""
    import torch_geometric
    import torchvision
    import transformers

    model = network()
    adam = torch.optim.Adam(model.parameters())
    torch.save(model, folder / "torch-network.pt")
    torch.save(model, folder / "torch-network-old-format.pt", **OLD)
    torch.save(nn.DataParallel(model), folder / "torch-network-data-parallel.pt")
    torch.save(torch.compile(model), folder / "torch-network-compiled.pt")
    torch.save(nn.LSTM(3, 4), folder / "torch-lstm.pt")
    torch.save(nn.Transformer(8, 2, 1, 1, 16), folder / "torch-transformer.pt")
    torch.save(torchvision.models.resnet18(weights=None), folder / "torchvision-resnet18.pth")
    torch.save(transformers.BertForMaskedLM(small(transformers.BertConfig)), folder / "transformers-bert.pt")
    torch.save({"config": transformers.BertConfig(), "model": model.state_dict()}, folder / "transformers-configured.pt")
    torch.save(transformers.TrainingArguments("out", use_cpu=True), folder / "transformers-training_args.bin")
    schedule = torch.optim.lr_scheduler.StepLR(adam, 3)
    torch.save({"model": model.state_dict(), "optimizer": adam, "scheduler": schedule}, folder / "torch-optimiser.pt")
    graph = torch_geometric.data.Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]))
    torch.save(graph, folder / "torch_geometric-graph.pt")


def programs(folder):
    """What is more than weights: TorchScript, exported programs, and checkpoints in several files."""
    given = torch.rand(1, 3, 8, 8)
    model = network().eval()
    torch.jit.script(model).save(folder / "torch-script.pt")
    torch.jit.trace(model, given).save(folder / "torch-trace.pt")
    torch.export.save(torch.export.export(model, (given,)), folder / "torch-export.pt2")
    out = folder / "out"
    torch.distributed.checkpoint.save(model.state_dict(), checkpoint_id=out, no_dist=True)
    (out / ".metadata").rename(folder / "torch-distributed.metadata")
    next(out.glob("*.distcp")).rename(folder / "torch-distributed.distcp")
    shutil.rmtree(out)


def estimators(folder):
    """Estimators that are pickled whole, as scikit-learn's manual has it."""
    import joblib, lightgbm, pandas, scipy.sparse, statsmodels.api, statsmodels.tsa.api, xgboost
    from sklearn import cluster, ensemble, feature_extraction, linear_model, metrics, model_selection, neighbors
    from sklearn import neural_network, pipeline, preprocessing, svm

    x, y, texts = numpy.random.rand(60, 4), numpy.arange(60) % 2, ["a cat", "a dog"]
    scoring = metrics.make_scorer(metrics.f1_score)
    of = {
        "sklearn-forest": ensemble.RandomForestClassifier(3, random_state=SEED).fit(x, y),
        "sklearn-logistic": linear_model.LogisticRegression().fit(x, y),
        "sklearn-pipeline": pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC()).fit(x, y),
        "sklearn-grid": model_selection.GridSearchCV(svm.SVC(), {"C": [1, 2]}, scoring=scoring, cv=3).fit(x, y),
        "sklearn-means": cluster.KMeans(2).fit(x),
        "sklearn-perceptron": neural_network.MLPClassifier((4,), max_iter=5).fit(x, y),
        "sklearn-neighbours": neighbors.KNeighborsClassifier().fit(x, y),
        "sklearn-tfidf": feature_extraction.text.TfidfVectorizer().fit(texts),
        "sklearn-count": feature_extraction.text.CountVectorizer(tokenizer=str.split).fit(texts),
        "sklearn-function": preprocessing.FunctionTransformer(numpy.log1p),
        "xgboost-classifier": xgboost.XGBClassifier(n_estimators=3).fit(x, y),
        "lightgbm-classifier": lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(x, y),
    }
    for n, (name, model) in enumerate(of.items()):
        if n % 2:
            joblib.dump(model, folder / f"{name}.joblib")
        else:
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(model))
    pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_pickle(folder / "pandas-frame.pkl")
    (folder / "scipy-sparse.pkl").write_bytes(pickle.dumps(scipy.sparse.eye(3).tocsr()))
    statsmodels.api.OLS(y, x).fit().save(str(folder / "statsmodels-ols.pickle"))
    statsmodels.tsa.api.ARIMA(x[:, 0], order=(1, 0, 0)).fit().save(str(folder / "statsmodels-arima.pickle"))


def words(folder):
    """Models of text, and one of Keras, that are pickled whole."""
    import gensim, keras, spacy

    lines = [["a", "cat"], ["a", "dog"]] * 5
    vectors = gensim.models.Word2Vec(lines, vector_size=8, min_count=1)
    vectors.save(str(folder / "gensim-word2vec.model"))
    vectors.wv.save(str(folder / "gensim-vectors.kv"))
    gensim.models.FastText(lines, vector_size=8, min_count=1, bucket=50).save(str(folder / "gensim-fasttext.model"))
    gensim.corpora.Dictionary(lines).save(str(folder / "gensim-words.dict"))
    (folder / "spacy-language.pkl").write_bytes(pickle.dumps(spacy.blank("en")))
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    (folder / "keras-model.pkl").write_bytes(pickle.dumps(model))


def no_pickles(folder):
    """Formats that need no pickle."""
    import flax.serialization, gguf, jax, keras, lightgbm, onnx, safetensors.torch, spacy, xgboost
    from onnx import helper

    safetensors.torch.save_model(Embedding(), str(folder / "safetensors-tied.safetensors"))
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.save(folder / "keras-model.keras")
    model.save(folder / "keras-model.h5")
    model.save_weights(folder / "keras-model.weights.h5")
    params = {"dense": {"kernel": jax.numpy.ones((4, 3)), "bias": jax.numpy.zeros(3, "bfloat16")}}
    (folder / "flax-model.msgpack").write_bytes(flax.serialization.to_bytes(params))
    weight = onnx.numpy_helper.from_array(numpy.ones((4, 3), "<f4"), "w")
    product, ends = helper.make_node("MatMul", ["x", "w"], ["y"]), [("x", [1, 4]), ("y", [1, 3])]
    given, gives = [[helper.make_tensor_value_info(name, 1, shape)] for name, shape in ends]
    graph = helper.make_graph([product], "g", given, gives, [weight])
    onnx.save(helper.make_model(graph), folder / "onnx-model.onnx")
    writer = gguf.GGUFWriter(str(folder / "gguf-model.gguf"), "llama")
    writer.add_tensor("token_embd.weight", numpy.ones((8, 4), "<f4"))
    for step in [writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close]:
        step()
    x, y = numpy.random.rand(60, 4), numpy.arange(60) % 2
    boosted = xgboost.XGBClassifier(n_estimators=3).fit(x, y)
    boosted.save_model(folder / "xgboost-model.json")
    boosted.save_model(folder / "xgboost-model.ubj")
    lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(x, y).booster_.save_model(folder / "lightgbm-model.txt")
    numpy.savez(folder / "numpy-model.npz", w=x, b=y)
    language = spacy.blank("en")
    categories = language.add_pipe("textcat")
    categories.add_label("good"), categories.add_label("bad")
    language.initialize()
    (folder / "spacy-model.msgpack").write_bytes(language.to_bytes())


KINDS = {
    "tensors": [state_dicts, tensors, language_models, hub, vision, paddle_files, arrays],
    "training": [optimisers, trainings, lightning],
    "objects": [whole_torch, programs, estimators, words, reinforcement],
    "without": [no_pickles],
}


def main():
    root = pathlib.Path(sys.argv[1])
    for kind, makers in KINDS.items():
        (root / kind).mkdir(parents=True)
        for make in makers:
            random.seed(SEED), numpy.random.seed(SEED), torch.manual_seed(SEED)
            make(root / kind)


if __name__ == "__main__":
    main()
