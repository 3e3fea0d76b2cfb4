"""The embedded WebUI's page: txt2img, img2img and PNG Info, with the element names that extensions look for."""
