pypose-ops train cpm --preset efficientnet_lite0 --recipe --precision 32-true \
  --weights cpm_pretrained/before/weights.safetensors --lr 5e-4 --freeze cascade.features.backbone \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.1 --epochs 6 --last-epochs 3 --out cpm_pretrained
