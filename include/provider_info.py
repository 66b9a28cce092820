def get_provider_info(): return {"package-name":"webex-contact-center-archive","name":"x","description":"x"}
