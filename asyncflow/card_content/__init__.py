"""What is on a card: components, the document that is stored, and how it is drawn.

A step makes components (`component`, `components`, `pictures`, `charts`) and gives them to a card
(`collector`). A component becomes plain data, its *part*. The parts of a card are its document
(`document`), which is stored. Whoever looks at a card makes a drawing of the document (`drawing`),
JSON that `page/static/cards.js` draws. `html` makes one file of it. Nothing here opens a file of a
store.
"""
