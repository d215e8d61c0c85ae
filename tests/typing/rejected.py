"""Mistakes of users, each line rejected by mypy --strict and pyright. Never run."""

from convlens.client import Activations, AsyncClient, Client, GradCAM, Output, Saliency

client = Client()

Client("localhost:50051", "token")  # rejected
Client(timeout="5")  # rejected
Client(tls="ca.pem")  # rejected
client.saliency(None)  # rejected
client.saliency(3.5)  # rejected
client.saliency("dog.jpg", "smooth")  # rejected
client.saliency("dog.jpg", smaples=9)  # rejected
client.saliency("dog.jpg", target=1.5)  # rejected
client.saliency("dog.jpg", priority="urgent")  # rejected
client.saliency("dog.jpg", value_range=255)  # rejected
client.saliency("dog.jpg", baselines=["red"])  # rejected
client.grad_cam("dog.jpg", method="eigen_cam")  # rejected
client.grad_cam("dog.jpg", layer=5)  # rejected
client.activations("dog.jpg", "c1", 5)  # rejected
client.activations("dog.jpg", "c1", reduction="median")  # rejected
client.occlusion("dog.jpg", 8)  # rejected
client.visualize("dog.jpg", GradCAM())  # rejected
client.visualize("dog.jpg", [GradCAM])  # rejected
client.visualize("dog.jpg", ["grad_cam"])  # rejected
client.map(["a.jpg"], [GradCAM()], errors="skip")  # rejected
client.map(["a.jpg"], [GradCAM()], progress=5)  # rejected
client.occlusion("dog.jpg", progress="bar")  # rejected
client.job("ab").result(5, True)  # rejected
client.jobs("done")  # rejected
client.job(5)  # rejected
print(client.job("ab").status().stat)  # rejected
print(client.models()[0].lables)  # rejected
client.models()[0].name = "other"  # rejected
print(client.saliency("dog.jpg")[0])  # rejected
Saliency(method="eigen")  # rejected
Saliency(reduction="none")  # rejected
Activations(5)  # rejected
Output(dtype="float64")  # rejected
Saliency().method = "guided"  # rejected


async def asynchronous() -> None:
    async with AsyncClient() as remote:
        print(remote.saliency("dog.jpg").predictions)  # rejected
        for _ in remote.map(["a.jpg"], [GradCAM()]):  # rejected
            pass
