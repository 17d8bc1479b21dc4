"""Layers: one class each, under PyTorch's names, with its constructor orders, defaults and initialisations."""
from minilp.autograd.parameter import Parameter
from minilp.nn import functional, init
from minilp.nn.activation import GELU, ReLU, Sigmoid, Softmax, Tanh
from minilp.nn.attention import MultiheadAttention
from minilp.nn.containers import ModuleList, Sequential
from minilp.nn.conv import Conv2d
from minilp.nn.dropout import Dropout
from minilp.nn.embedding import Embedding
from minilp.nn.flatten import Flatten
from minilp.nn.linear import Identity, Linear
from minilp.nn.loss import CrossEntropyLoss, MSELoss
from minilp.nn.module import Module
from minilp.nn.norm import BatchNorm2d, LayerNorm
from minilp.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minilp.nn.stacks import TransformerDecoder, TransformerEncoder
from minilp.nn.transformer import TransformerDecoderLayer, TransformerEncoderLayer

__all__ = ["GELU", "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "Conv2d", "CrossEntropyLoss", "Dropout",
           "Embedding", "Flatten", "Identity", "LayerNorm", "Linear", "MSELoss", "MaxPool2d", "Module", "ModuleList",
           "MultiheadAttention", "Parameter", "ReLU", "Sequential", "Sigmoid", "Softmax", "Tanh", "TransformerDecoder",
           "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer", "functional", "init"]
