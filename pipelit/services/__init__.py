"""What the web layer may ask: rights are checked here, writes go through the store from here.

Services know neither HTTP nor SQL text. What they decline they raise as `pipelit.errors.Refusal`.
"""
