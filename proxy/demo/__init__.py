"""The demo: an OpenID provider for demos, an app that knows nothing of authentication, and a
runner that puts Nightporter between the two. Nothing in the product imports this package."""
