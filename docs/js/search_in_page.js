// Search that also works where the pages are opened as files: there a browser starts no worker, and
// fetches no index. This takes the place of the worker that search/main.js starts; it does what that
// one does, in the page, with an index that comes as a script.
window.Worker = class {
  postMessage(message) {
    if (!document.getElementById("properdocs-search-query")) return
    if (message.init) this.load(["search/lunr.js", "search/search_index.js"], () => this.begin())
    else this.onmessage({ data: { results: this.find(message.query) } })
  }

  load([first, ...rest], done) {
    if (!first) return done()
    const script = document.createElement("script")
    script.src = joinUrl(base_url, first)
    script.onload = () => this.load(rest, done)
    document.head.append(script)
  }

  begin() {
    const { config, docs } = window.searchIndex
    lunr.tokenizer.separator = new RegExp(config.separator)
    this.documents = new Map(docs.map(each => [each.location, each]))
    this.index = lunr(function () {
      this.ref("location")
      this.field("title")
      this.field("text")
      docs.forEach(each => this.add(each))
    })
    this.onmessage({ data: { config } })
    this.onmessage({ data: { allowSearch: true } })
  }

  find(query) {
    const found = this.index.search(query).map(result => this.documents.get(result.ref))
    return found.map(each => ({ ...each, summary: each.text.substring(0, 200) }))
  }
}
