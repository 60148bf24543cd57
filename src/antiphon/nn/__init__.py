"""The model in PyTorch: state, recurrent layers, encoder, attention, decoder, softmax, and the whole.

Sizes, here and everywhere: B sentences, S source length, T target length, E embedding, H hidden, M memory
width, A attention width, V vocabulary, N rows in a search. Batch first.
"""
