"""ModelService: the models that workers serve, and the server's limits."""

from __future__ import annotations

from convlens.server import responses
from convlens.server.model_cache import ModelCache
from convlens.server.services import VERSION, Context
from convlens.server.settings import ServerSettings
from convlens.server.validation import default_model, find_model
from convlens.v1 import model_pb2, model_pb2_grpc
from convlens.v1.status_error import SpecError


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Describes what can be requested."""

    def __init__(self, models: ModelCache, settings: ServerSettings) -> None:
        self._models = models
        self._settings = settings

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:  # noqa: N802, ARG002
        """Return the models served, and those that workers refuse to serve."""
        live = await self._models.get()
        models = [live.models[name] for name in sorted(live.models)]
        return model_pb2.ListModelsResponse(models=models, refused=live.refused)

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.GetModelResponse:  # noqa: N802, ARG002
        """Return one model."""
        if not request.name:
            raise SpecError("name", "is empty; a model's name is needed")
        return model_pb2.GetModelResponse(model=find_model(request.name, await self._models.get(), "name"))

    async def GetServerInfo(  # noqa: N802
        self,
        request: model_pb2.GetServerInfoRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> model_pb2.GetServerInfoResponse:
        """Return version, limits and the default model."""
        return model_pb2.GetServerInfoResponse(
            version=VERSION,
            limits=responses.limits(self._settings),
            default_model=default_model((await self._models.get()).models),
        )
