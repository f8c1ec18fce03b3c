pypose-ops train stacked_hourglass --preset efficientnet_lite0 --recipe --precision 32-true \
  --backbone heatmap_net/weights.safetensors \
  --freeze cascade.features.backbone.stem --freeze cascade.features.backbone.blocks.0 --freeze cascade.features.backbone.blocks.1 --freeze cascade.features.backbone.blocks.2 \
  --data lsp:lsp_dataset.zip --data lspet:lspet_dataset.zip \
  --data-weight 1 --data-weight 0.2 --epochs 9 --last-epochs 2 --out stacked_hourglass_pretrained
